// A libibverbs for tests on machines without RDMA: two devices whose datagrams are UDP packets of the loopback interface,
// so that two processes can exchange frames; a queue pair's number is its port there. Built against rdma-core's own header, so it also checks that the structures agree.
//
// What it does wrong it is told by the environment: FAKE_FAIL_SEND=N and FAKE_FAIL_RECEIVE=N end request number N with an
// error and the queue pair in the error state; FAKE_FATAL=N takes the device away with the Nth frame received;
// FAKE_NO_MEMORY=1 refuses memory regions.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <infiniband/verbs.h>
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
};

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

static int poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc) {
  struct fake_qp *qp = ((struct fake_cq *)cq)->owner;
  int n = 0;
  if (qp == NULL) return 0;
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
      if (message.qkey != qp->qkey) continue;
      length -= 8;
      received++;
      if (received == asked("FAKE_FATAL")) {
        int event = IBV_EVENT_DEVICE_FATAL;
        if (write(of(qp->pair.context)->events[1], &event, sizeof event) < 0) abort();
      }
      if (length + GRH > at->length || !owned(at) || received == asked("FAKE_FAIL_RECEIVE")) {
        wc[n].status = length + GRH > at->length ? IBV_WC_LOC_LEN_ERR : IBV_WC_LOC_PROT_ERR;
        qp->pair.state = IBV_QPS_ERR;
      } else {
        memset((void *)(uintptr_t)at->addr, 0x5a, GRH);
        memcpy((char *)(uintptr_t)at->addr + GRH, message.bytes, length);
        wc[n].byte_len = length + GRH;
        wc[n].src_qp = message.from;
        wc[n].wc_flags = IBV_WC_GRH;
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
    if (wr->num_sge != 1 || wr->opcode != IBV_WR_SEND || wr->wr.ud.ah == NULL || qp->sent_count == RING) {
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
      struct sockaddr_in to = address(wr->wr.ud.remote_qpn);
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
  made->whole.sz = sizeof made->whole;
  made->whole.query_port = query_port;
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
  if (attr->qp_type != IBV_QPT_UD) {
    errno = EOPNOTSUPP;
    return NULL;
  }
  struct fake_qp *qp = calloc(1, sizeof *qp);
  qp->pair.context = pd->context;
  qp->pair.pd = pd;
  qp->pair.send_cq = attr->send_cq;
  qp->pair.recv_cq = attr->recv_cq;
  qp->pair.qp_type = attr->qp_type;
  qp->socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in at = address(0);
  socklen_t length = sizeof at;
  if (bind(qp->socket, (void *)&at, length) != 0 || getsockname(qp->socket, (void *)&at, &length) != 0) return NULL;
  qp->pair.qp_num = ntohs(at.sin_port);
  ((struct fake_cq *)attr->send_cq)->owner = ((struct fake_cq *)attr->recv_cq)->owner = qp;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = attr->recv_cq};
  if (attr->recv_cq->channel != NULL) epoll_ctl(attr->recv_cq->channel->fd, EPOLL_CTL_ADD, qp->socket, &event);
  return &qp->pair;
}

int ibv_destroy_qp(struct ibv_qp *pair) {
  struct fake_qp *qp = (struct fake_qp *)pair;
  ((struct fake_cq *)pair->send_cq)->owner = ((struct fake_cq *)pair->recv_cq)->owner = NULL;
  close(qp->socket);
  free(qp);
  return 0;
}

// InfiniBand Architecture Specification, table 96: what each step of a datagram queue pair needs.
int ibv_modify_qp(struct ibv_qp *pair, struct ibv_qp_attr *attr, int mask) {
  struct fake_qp *qp = (struct fake_qp *)pair;
  static const int needed[] = {
      [IBV_QPS_RESET] = IBV_QP_STATE,
      [IBV_QPS_INIT] = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY,
      [IBV_QPS_RTR] = IBV_QP_STATE,
      [IBV_QPS_RTS] = IBV_QP_STATE | IBV_QP_SQ_PSN,
  };
  enum ibv_qp_state to = attr->qp_state;
  if (to > IBV_QPS_RTS || mask != needed[to] || (to != IBV_QPS_RESET && pair->state != to - 1)) return EINVAL;
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
