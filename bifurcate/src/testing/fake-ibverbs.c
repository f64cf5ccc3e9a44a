// A libibverbs for tests on machines without RDMA: two devices whose datagrams are UDP packets of the loopback interface,
// so that two processes can exchange frames; a queue pair's number is its port there. Built against rdma-core's own header, so it also checks that the structures agree.
//
// What it does wrong it is told by the environment: FAKE_FAIL_SEND=N and FAKE_FAIL_RECEIVE=N end request number N with an
// error and the queue pair in the error state; FAKE_FATAL=N takes the device away with the Nth frame received;
// FAKE_EVENT=N tells of the event with that number of enum ibv_event_type at once; FAKE_NO_MEMORY=1 refuses memory regions. With FAKE_WIRE=PORT the devices have raw packets too: those to this UDP port
// arrive on fake0 where a flow rule brings them, spread over its work queues by their last byte; what it sends goes to
// the next port.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#undef ibv_query_port
#undef ibv_reg_mr
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LKEY 7
#define RING 16384
#define GRH 40

struct fake_context {
  struct verbs_context whole; // Its context comes last.
  int events[2];
};

struct fake_qp {
  struct ibv_qp pair;
  int socket;
  struct { uint64_t id; struct ibv_sge at; } receives[RING];
  uint32_t first, posted;
  struct { uint64_t id; enum ibv_wc_status status; } sent[RING];
  uint32_t sent_first, sent_count;
  uint32_t qkey;
};

struct fake_cq {
  struct ibv_cq queue;
  struct fake_qp *owner;
  struct fake_wq *work;
};

// A receive queue of its own, and what has come for it.
struct fake_wq {
  struct ibv_wq queue;
  struct { uint64_t id; struct ibv_sge at; } receives[RING];
  uint32_t first, posted;
  struct { ssize_t length; char bytes[2048]; } waiting[256];
  uint32_t waiting_first, waiting_count;
};

struct fake_table {
  struct ibv_rwq_ind_table table;
  struct fake_wq *queues[64];
  uint32_t size;
};

// Raw packets: where they come, the table that spreads them, and the rules that bring them.
static struct { int socket, rules; struct fake_table *table; } wire = {.socket = -1};
static pthread_mutex_t spreading = PTHREAD_MUTEX_INITIALIZER;

static struct ibv_device devices[2];
static struct { char *from; size_t length; } region;
static long sends, received;

static long asked(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : -1;
}

static struct fake_context *of(struct ibv_context *context) {
  return (struct fake_context *)((char *)context - offsetof(struct fake_context, whole.context));
}

static struct sockaddr_in address(uint32_t number) {
  return (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons(number), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int owned(const struct ibv_sge *at) {
  char *from = (char *)(uintptr_t)at->addr;
  return at->lkey == LKEY && from >= region.from && from + at->length <= region.from + region.length;
}

// What has come on the wire goes to the work queues, or nowhere where no rule brings it.
static void spread(void) {
  struct { uint32_t from, qkey; char bytes[2048]; } message;
  ssize_t length;
  while ((length = recv(wire.socket, &message, sizeof message, MSG_DONTWAIT)) > 8) {
    if (wire.rules == 0) continue;
    struct fake_wq *to = wire.table->queues[(uint8_t)message.bytes[length - 9] % wire.table->size];
    if (to->waiting_count == 256) continue;
    uint32_t slot = (to->waiting_first + to->waiting_count++) % 256;
    to->waiting[slot].length = length - 8;
    memcpy(to->waiting[slot].bytes, message.bytes, length - 8);
  }
}

static int poll_work(struct fake_wq *work, int most, struct ibv_wc *wc) {
  int n = 0;
  pthread_mutex_lock(&spreading);
  if (wire.table != NULL) spread();
  for (; n < most && work->posted > 0 && work->waiting_count > 0; n++) {
    struct ibv_sge *at = &work->receives[work->first].at;
    memset(&wc[n], 0, sizeof wc[n]);
    wc[n].wr_id = work->receives[work->first].id;
    wc[n].opcode = IBV_WC_RECV;
    wc[n].byte_len = work->waiting[work->waiting_first].length;
    if (!owned(at) || wc[n].byte_len > at->length) abort();
    memcpy((void *)(uintptr_t)at->addr, work->waiting[work->waiting_first].bytes, wc[n].byte_len);
    work->first = (work->first + 1) % RING;
    work->posted--;
    work->waiting_first = (work->waiting_first + 1) % 256;
    work->waiting_count--;
  }
  pthread_mutex_unlock(&spreading);
  return n;
}

static int poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc) {
  struct fake_qp *qp = ((struct fake_cq *)cq)->owner;
  int n = 0;
  if (((struct fake_cq *)cq)->work != NULL) return poll_work(((struct fake_cq *)cq)->work, most, wc);
  if (qp == NULL) return 0;
  // A route header comes with datagrams alone.
  uint32_t before = qp->pair.qp_type == IBV_QPT_UD ? GRH : 0;
  if (cq == qp->pair.send_cq) {
    for (; n < most && qp->sent_count > 0; n++) {
      memset(&wc[n], 0, sizeof wc[n]);
      wc[n].wr_id = qp->sent[qp->sent_first].id;
      wc[n].status = qp->sent[qp->sent_first].status;
      wc[n].qp_num = qp->pair.qp_num;
      qp->sent_first = (qp->sent_first + 1) % RING;
      qp->sent_count--;
    }
    return n;
  }
  while (n < most && qp->posted > 0) {
    struct { uint32_t from, qkey; char bytes[8192]; } message;
    memset(&wc[n], 0, sizeof wc[n]);
    wc[n].wr_id = qp->receives[qp->first].id;
    wc[n].qp_num = qp->pair.qp_num;
    wc[n].opcode = IBV_WC_RECV;
    struct ibv_sge *at = &qp->receives[qp->first].at;
    if (qp->pair.state == IBV_QPS_ERR) {
      wc[n].status = IBV_WC_WR_FLUSH_ERR;
    } else {
      ssize_t length = recv(qp->socket, &message, sizeof message, MSG_DONTWAIT);
      if (length < 8) break;
      if (message.qkey != qp->qkey || (before == 0 && wire.rules == 0)) continue;
      length -= 8;
      received++;
      if (received == asked("FAKE_FATAL")) {
        int event = IBV_EVENT_DEVICE_FATAL;
        if (write(of(qp->pair.context)->events[1], &event, sizeof event) < 0) abort();
      }
      if (length + before > at->length || !owned(at) || received == asked("FAKE_FAIL_RECEIVE")) {
        wc[n].status = length + before > at->length ? IBV_WC_LOC_LEN_ERR : IBV_WC_LOC_PROT_ERR;
        qp->pair.state = IBV_QPS_ERR;
      } else {
        memset((void *)(uintptr_t)at->addr, 0x5a, before);
        memcpy((char *)(uintptr_t)at->addr + before, message.bytes, length);
        wc[n].byte_len = length + before;
        wc[n].src_qp = message.from;
        wc[n].wc_flags = before > 0 ? IBV_WC_GRH : 0;
      }
    }
    qp->first = (qp->first + 1) % RING;
    qp->posted--;
    n++;
  }
  return n;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited) { return cq->channel == NULL || solicited ? EINVAL : 0; }

static int post_recv(struct ibv_qp *pair, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad) {
  struct fake_qp *qp = (struct fake_qp *)pair;
  for (; wr != NULL; wr = wr->next) {
    if (pair->state == IBV_QPS_RESET || wr->num_sge != 1 || qp->posted == RING) {
      *bad = wr;
      return EINVAL;
    }
    uint32_t slot = (qp->first + qp->posted++) % RING;
    qp->receives[slot].id = wr->wr_id;
    qp->receives[slot].at = wr->sg_list[0];
  }
  return 0;
}

static int post_send(struct ibv_qp *pair, struct ibv_send_wr *wr, struct ibv_send_wr **bad) {
  struct fake_qp *qp = (struct fake_qp *)pair;
  for (; wr != NULL; wr = wr->next) {
    if (wr->num_sge != 1 || wr->opcode != IBV_WR_SEND ||
        (pair->qp_type == IBV_QPT_UD && wr->wr.ud.ah == NULL) || qp->sent_count == RING) {
      *bad = wr;
      return EINVAL;
    }
    enum ibv_wc_status status = IBV_WC_SUCCESS;
    if (pair->state != IBV_QPS_RTS) {
      status = IBV_WC_WR_FLUSH_ERR;
    } else if (++sends == asked("FAKE_FAIL_SEND") || !owned(wr->sg_list)) {
      status = IBV_WC_LOC_QP_OP_ERR;
      pair->state = IBV_QPS_ERR;
    } else {
      struct { uint32_t from, qkey; char bytes[8192]; } message = {.from = pair->qp_num, .qkey = wr->wr.ud.remote_qkey};
      memcpy(message.bytes, (void *)(uintptr_t)wr->sg_list[0].addr, wr->sg_list[0].length);
      int raw = pair->qp_type == IBV_QPT_RAW_PACKET;
      struct sockaddr_in to = address(raw ? asked("FAKE_WIRE") + 1 : (long)wr->wr.ud.remote_qpn);
      if (raw) message.from = message.qkey = 0;
      // One that finds no room or nobody is lost, as on a wire.
      (void)!sendto(qp->socket, &message, 8 + wr->sg_list[0].length, MSG_DONTWAIT, (void *)&to, sizeof to);
    }
    if (status != IBV_WC_SUCCESS || (wr->send_flags & IBV_SEND_SIGNALED)) {
      uint32_t slot = (qp->sent_first + qp->sent_count++) % RING;
      qp->sent[slot].id = wr->wr_id;
      qp->sent[slot].status = status;
    }
  }
  return 0;
}

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *into, size_t size) {
  (void)context;
  if (port != 1 || size != sizeof *into) return EINVAL;
  memset(into, 0, size);
  into->state = IBV_PORT_ACTIVE;
  into->max_mtu = into->active_mtu = IBV_MTU_2048;
  into->gid_tbl_len = 1;
  into->link_layer = IBV_LINK_LAYER_ETHERNET;
  return 0;
}

// Each specification has the size that the header gives its kind, Ethernet's first, and nothing is left over.
static struct ibv_flow *create_flow(struct ibv_qp *qp, struct ibv_flow_attr *attr) {
  static const size_t sizes[] = {
      [IBV_FLOW_SPEC_ETH] = sizeof(struct ibv_flow_spec_eth),
      [IBV_FLOW_SPEC_IPV4_EXT] = sizeof(struct ibv_flow_spec_ipv4_ext),
      [IBV_FLOW_SPEC_IPV6] = sizeof(struct ibv_flow_spec_ipv6),
      [IBV_FLOW_SPEC_TCP] = sizeof(struct ibv_flow_spec_tcp_udp),
      [IBV_FLOW_SPEC_UDP] = sizeof(struct ibv_flow_spec_tcp_udp),
  };
  char *at = (char *)(attr + 1), *end = (char *)attr + attr->size;
  int good = attr->type == IBV_FLOW_ATTR_NORMAL && attr->port == 1 && qp->qp_type == IBV_QPT_RAW_PACKET;
  for (int i = 0; good && i < attr->num_of_specs; i++) {
    struct ibv_flow_spec *spec = (void *)at;
    good = spec->hdr.type <= IBV_FLOW_SPEC_UDP && spec->hdr.size == sizes[spec->hdr.type] &&
           (i > 0) == (spec->hdr.type != IBV_FLOW_SPEC_ETH);
    at += spec->hdr.size;
  }
  if (!good || at != end) {
    errno = EINVAL;
    return NULL;
  }
  struct ibv_flow *flow = calloc(1, sizeof *flow);
  flow->context = qp->context;
  wire.rules++;
  return flow;
}

static int destroy_flow(struct ibv_flow *flow) {
  wire.rules--;
  free(flow);
  return 0;
}

static int post_wq_recv(struct ibv_wq *queue, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad) {
  struct fake_wq *work = (struct fake_wq *)queue;
  pthread_mutex_lock(&spreading);
  for (; wr != NULL; wr = wr->next) {
    if (queue->state != IBV_WQS_RDY || wr->num_sge != 1 || work->posted == RING) break;
    uint32_t slot = (work->first + work->posted++) % RING;
    work->receives[slot].id = wr->wr_id;
    work->receives[slot].at = wr->sg_list[0];
  }
  pthread_mutex_unlock(&spreading);
  *bad = wr;
  return wr == NULL ? 0 : EINVAL;
}

static struct ibv_wq *create_wq(struct ibv_context *context, struct ibv_wq_init_attr *attr) {
  struct fake_wq *made = calloc(1, sizeof *made);
  if (attr->wq_type != IBV_WQT_RQ || attr->max_sge != 1 || attr->comp_mask != 0) return errno = EINVAL, NULL;
  made->queue.context = context;
  made->queue.pd = attr->pd;
  made->queue.cq = attr->cq;
  made->queue.post_recv = post_wq_recv;
  ((struct fake_cq *)attr->cq)->work = made;
  return &made->queue;
}

static int modify_wq(struct ibv_wq *queue, struct ibv_wq_attr *attr) {
  if (attr->attr_mask != IBV_WQ_ATTR_STATE) return EINVAL;
  if (attr->wq_state == IBV_WQS_RESET) ((struct fake_wq *)queue)->posted = 0;
  queue->state = attr->wq_state;
  return 0;
}

static int destroy_wq(struct ibv_wq *queue) {
  // What spreads packets over it has to be gone.
  if (wire.table != NULL) abort();
  ((struct fake_cq *)queue->cq)->work = NULL;
  free(queue);
  return 0;
}

static struct ibv_rwq_ind_table *create_table(struct ibv_context *context, struct ibv_rwq_ind_table_init_attr *attr) {
  struct fake_table *made = calloc(1, sizeof *made);
  made->table.context = context;
  made->size = 1u << attr->log_ind_tbl_size;
  for (uint32_t i = 0; i < made->size; i++) made->queues[i] = (struct fake_wq *)attr->ind_tbl[i];
  return &made->table;
}

static int destroy_table(struct ibv_rwq_ind_table *table) {
  free(table);
  return 0;
}

static int listen_on_wire(void) {
  int made = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in at = address(asked("FAKE_WIRE"));
  if (bind(made, (void *)&at, sizeof at) != 0) abort();
  return made;
}

static struct ibv_qp *create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr) {
  const uint32_t mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_IND_TABLE | IBV_QP_INIT_ATTR_RX_HASH;
  const uint64_t udp4 = IBV_RX_HASH_SRC_IPV4 | IBV_RX_HASH_DST_IPV4 | IBV_RX_HASH_SRC_PORT_UDP | IBV_RX_HASH_DST_PORT_UDP;
  struct ibv_rx_hash_conf *hash = &attr->rx_hash_conf;
  if (attr->qp_type != IBV_QPT_RAW_PACKET || attr->comp_mask != mask || hash->rx_hash_key_len != 40 ||
      hash->rx_hash_function != IBV_RX_HASH_FUNC_TOEPLITZ || hash->rx_hash_key[0] != 0x6d ||
      hash->rx_hash_fields_mask != udp4) {
    errno = EINVAL;
    return NULL;
  }
  struct fake_qp *qp = calloc(1, sizeof *qp);
  qp->pair.context = context;
  qp->pair.qp_type = attr->qp_type;
  wire.table = (struct fake_table *)attr->rwq_ind_tbl;
  qp->socket = wire.socket = listen_on_wire();
  for (uint32_t i = 0; i < wire.table->size; i++) {
    struct ibv_cq *cq = wire.table->queues[i]->queue.cq;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = cq};
    epoll_ctl(cq->channel->fd, EPOLL_CTL_ADD, qp->socket, &event);
  }
  return &qp->pair;
}

struct ibv_device **ibv_get_device_list(int *count) {
  struct ibv_device **list = calloc(3, sizeof *list);
  for (int i = 0; i < 2; i++) {
    snprintf(devices[i].name, sizeof devices[i].name, "fake%d", i);
    list[i] = &devices[i];
  }
  *count = 2;
  return list;
}

void ibv_free_device_list(struct ibv_device **list) { free(list); }

const char *ibv_get_device_name(struct ibv_device *device) { return device->name; }

struct ibv_context *ibv_open_device(struct ibv_device *device) {
  struct fake_context *made = calloc(1, sizeof *made);
  if (pipe(made->events) != 0) return NULL;
  int event = asked("FAKE_EVENT");
  if (event >= 0 && write(made->events[1], &event, sizeof event) < 0) return NULL;
  made->whole.sz = sizeof made->whole;
  made->whole.query_port = query_port;
  made->whole.ibv_create_flow = create_flow;
  made->whole.ibv_destroy_flow = destroy_flow;
  made->whole.create_wq = create_wq;
  made->whole.modify_wq = modify_wq;
  made->whole.destroy_wq = destroy_wq;
  made->whole.create_rwq_ind_table = create_table;
  made->whole.destroy_rwq_ind_table = destroy_table;
  made->whole.create_qp_ex = create_qp_ex;
  struct ibv_context *context = &made->whole.context;
  context->device = device;
  context->abi_compat = __VERBS_ABI_IS_EXTENDED;
  context->async_fd = made->events[0];
  context->ops.poll_cq = poll_cq;
  context->ops.req_notify_cq = req_notify_cq;
  context->ops.post_send = post_send;
  context->ops.post_recv = post_recv;
  return context;
}

int ibv_close_device(struct ibv_context *context) {
  close(of(context)->events[0]);
  close(of(context)->events[1]);
  free(of(context));
  return 0;
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event) {
  int type;
  if (read(context->async_fd, &type, sizeof type) != sizeof type) return -1;
  memset(event, 0, sizeof *event);
  event->event_type = type;
  if (type == IBV_EVENT_PORT_ACTIVE || type == IBV_EVENT_PORT_ERR) event->element.port_num = 1;
  return 0;
}

void ibv_ack_async_event(struct ibv_async_event *event) { (void)event; }

ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t most, uint32_t flags,
                             size_t size) {
  (void)context;
  if (most < 1 || flags != 0 || size != sizeof *entries) return -EINVAL;
  static const uint8_t gid[16] = {[10] = 0xff, 0xff, 127, 0, 0, 1};
  memset(entries, 0, size);
  memcpy(entries->gid.raw, gid, sizeof gid);
  entries->port_num = 1;
  entries->gid_type = IBV_GID_TYPE_ROCE_V2;
  entries->ndev_ifindex = 1;
  return 1;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context) {
  struct ibv_pd *pd = calloc(1, sizeof *pd);
  pd->context = context;
  return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd) {
  free(pd);
  return 0;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *from, size_t length, int access) {
  if (access != IBV_ACCESS_LOCAL_WRITE || asked("FAKE_NO_MEMORY") > 0) {
    errno = access == IBV_ACCESS_LOCAL_WRITE ? ENOMEM : EINVAL;
    return NULL;
  }
  struct ibv_mr *mr = calloc(1, sizeof *mr);
  *mr = (struct ibv_mr){.context = pd->context, .pd = pd, .addr = from, .length = length, .lkey = LKEY};
  region.from = from;
  region.length = length;
  return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr) {
  region.length = 0;
  free(mr);
  return 0;
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context) {
  struct ibv_comp_channel *channel = calloc(1, sizeof *channel);
  channel->context = context;
  channel->fd = epoll_create1(EPOLL_CLOEXEC);
  return channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel) {
  close(channel->fd);
  free(channel);
  return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entries, void *mine, struct ibv_comp_channel *channel,
                             int vector) {
  if (vector != 0 || entries < 1) {
    errno = EINVAL;
    return NULL;
  }
  struct fake_cq *made = calloc(1, sizeof *made);
  made->queue.context = context;
  made->queue.channel = channel;
  made->queue.cq_context = mine;
  made->queue.cqe = entries;
  return &made->queue;
}

int ibv_destroy_cq(struct ibv_cq *cq) {
  free(cq);
  return 0;
}

// The socket itself is what becomes readable: an event has come while it is.
int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **mine) {
  struct epoll_event event;
  if (epoll_wait(channel->fd, &event, 1, 0) != 1) return -1;
  *cq = event.data.ptr;
  *mine = (*cq)->cq_context;
  return 0;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int count) { (void)cq, (void)count; }

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr) {
  int raw = attr->qp_type == IBV_QPT_RAW_PACKET && asked("FAKE_WIRE") > 0;
  if (attr->qp_type != IBV_QPT_UD && !raw) {
    errno = EOPNOTSUPP;
    return NULL;
  }
  struct fake_qp *qp = calloc(1, sizeof *qp);
  qp->pair.context = pd->context;
  qp->pair.pd = pd;
  qp->pair.send_cq = attr->send_cq;
  qp->pair.recv_cq = attr->recv_cq;
  qp->pair.qp_type = attr->qp_type;
  int receives = attr->cap.max_recv_wr > 0;
  qp->socket = raw && receives ? listen_on_wire() : socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in at = address(0);
  socklen_t length = sizeof at;
  if (!(raw && receives) && bind(qp->socket, (void *)&at, length) != 0) return NULL;
  if (getsockname(qp->socket, (void *)&at, &length) != 0) return NULL;
  qp->pair.qp_num = ntohs(at.sin_port);
  ((struct fake_cq *)attr->send_cq)->owner = ((struct fake_cq *)attr->recv_cq)->owner = qp;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = attr->recv_cq};
  if (receives && attr->recv_cq->channel != NULL) epoll_ctl(attr->recv_cq->channel->fd, EPOLL_CTL_ADD, qp->socket, &event);
  return &qp->pair;
}

int ibv_destroy_qp(struct ibv_qp *pair) {
  struct fake_qp *qp = (struct fake_qp *)pair;
  if (pair->send_cq == NULL) {
    wire.table = NULL;
    close(qp->socket);
    free(qp);
    return 0;
  }
  ((struct fake_cq *)pair->send_cq)->owner = ((struct fake_cq *)pair->recv_cq)->owner = NULL;
  close(qp->socket);
  free(qp);
  return 0;
}

// ibv_modify_qp(3): what each step of a queue pair needs.
int ibv_modify_qp(struct ibv_qp *pair, struct ibv_qp_attr *attr, int mask) {
  struct fake_qp *qp = (struct fake_qp *)pair;
  static const int needed[] = {
      [IBV_QPS_RESET] = IBV_QP_STATE,
      [IBV_QPS_INIT] = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY,
      [IBV_QPS_RTR] = IBV_QP_STATE,
      [IBV_QPS_RTS] = IBV_QP_STATE | IBV_QP_SQ_PSN,
  };
  static const int raw[] = {
      [IBV_QPS_RESET] = IBV_QP_STATE,
      [IBV_QPS_INIT] = IBV_QP_STATE | IBV_QP_PORT,
      [IBV_QPS_RTR] = IBV_QP_STATE,
      [IBV_QPS_RTS] = IBV_QP_STATE,
  };
  enum ibv_qp_state to = attr->qp_state;
  if (to > IBV_QPS_RTS || mask != (pair->qp_type == IBV_QPT_UD ? needed : raw)[to] || (to != IBV_QPS_RESET && pair->state != to - 1)) return EINVAL;
  if (to == IBV_QPS_INIT) {
    if (attr->port_num != 1) return EINVAL;
    qp->qkey = attr->qkey;
  }
  if (to == IBV_QPS_RESET) qp->posted = qp->sent_count = 0;
  pair->state = to;
  return 0;
}

struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr) {
  if (!attr->is_global || attr->port_num != 1 || attr->grh.sgid_index != 0 || attr->grh.dgid.raw[12] != 127) {
    errno = EHOSTUNREACH;
    return NULL;
  }
  struct ibv_ah *ah = calloc(1, sizeof *ah);
  ah->context = pd->context;
  ah->pd = pd;
  return ah;
}

int ibv_destroy_ah(struct ibv_ah *ah) {
  free(ah);
  return 0;
}
