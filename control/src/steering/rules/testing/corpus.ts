// Expressions as people write them, with what becomes of each.
import type { FlowErrorCode } from "../flow-error.js";

/** Accepted here and by libpcap, with equal verdicts. One a line. */
export const ACCEPTED: readonly string[] = `
udp dst port 53
udp port 53
port 53
tcp port 80
tcp port 443
tcp port 80 or tcp port 443
tcp port 80 or 443
tcp dst port 22
tcp src port 22
not port 22
not tcp port 22
!port 22
tcp and not port 22
port 80 and host 10.0.0.1
host 10.0.0.1
src host 10.0.0.1
dst host 10.0.0.1
src 10.0.0.1
dst 10.0.0.1
host 10.0.0.1 and host 10.0.0.2
host 10.0.0.1 and (10.0.0.2 or 10.0.0.3)
host 10.0.0.1 or 10.0.0.2
src or dst host 10.0.0.1
src and dst host 10.0.0.1
dst or src host 10.0.0.1
dst and src host 10.0.0.1
not host 10.0.0.1
ip host 10.0.0.1 and not 10.0.0.2
ip host 10.0.0.1
ip src host 10.0.0.1
ip dst host 10.0.0.1
ip src 10.0.0.1
ip dst 224.0.0.251
net 10
net 10.0.0.0/8
net 10.1
net 10.1.2
net 10.1.2.3
net 192.168
net 192.168.1
net 192.168.1.0/24
net 192.168.0.0/16
net 172.16.0.0/12
src net 192.168.1.0/24
dst net 192.168.1.0/24
src net 10.0.0.0/8 and dst net 10.0.0.0/8
src and dst net 10.0.0.0/8
not net 10.0.0.0/8
net 10.0.0.0 mask 255.0.0.0
net 192.168.1.0 mask 255.255.255.0
dst net 10.0.0.0 mask 255.255.0.0
net 0.0.0.0/0
net 255.255.255.255/32
host 255.255.255.255
host 0.0.0.0
ip6
ip6 host ::1
host ::1
host fe80::1
src host fe80::1
dst host ff02::1
host 2001:db8::1
host 2001:db8:0:0:0:0:0:1
host 2001:db8:1:2:3:4:5:6
host ::ffff:10.0.0.1
host 2001:db8::192.0.2.1
ip6 src host 2001:db8::1
ip6 dst host 2001:db8::1
ip6 net 2001:db8::/32
net 2001:db8::/32
src net fe80::/10
dst net ff00::/8
net ::/0
net 2001:db8::1/128
host ::
ip6 and not net fe80::/10
ip
arp
rarp
arp or rarp
ip or ip6
ip or arp
not arp
not ip and not ip6
tcp
udp
sctp
icmp
icmp6
icmp or icmp6
igmp
igrp
pim
vrrp
carp
ah
esp
esp or ah
tcp or udp
tcp or udp or sctp
not tcp
not (tcp or udp)
not (tcp or udp or icmp or arp)
ip and tcp
ip6 and udp
ip and udp port 53
ip6 and udp port 53
ip and not icmp
atalk
aarp
decnet
lat
sca
moprc
mopdl
iso
clnp
esis
es-is
isis
is-is
l1
l2
iih
lsp
snp
csnp
psnp
stp
ipx
netbeui
llc
llc i
llc s
llc u
llc ui
llc rr
llc rnr
llc rej
llc ua
llc disc
llc sabme
llc test
llc xid
llc frmr
portrange 6000-6008
tcp portrange 6000-6008
udp portrange 1-1023
src portrange 1024-65535
dst portrange 1-1023
udp dst portrange 16384-32767
portrange 80
portrange 10-5
portrange 0-65535
port 0
port 65535
port 0x50
port 0120
port (80 or 443)
port (80 or 443 or 8080)
tcp dst port (80 or 443)
not port (22 or 23)
port 67 or port 68
udp and (port 67 or port 68)
udp port 67 or 68
udp src port 67 and udp dst port 68
port 5060 or portrange 10000-20000
tcp port 179
udp port 123
udp port 161 or 162
udp port 514
udp port 1812 or 1813
udp port 4789
udp port 6081
udp port 500 or 4500
tcp port 25 or 465 or 587
tcp port 110 or 995 or 143 or 993
tcp port 3306
tcp port 5432
tcp port 6379
tcp port 27017
tcp port 9092
sctp port 36412
sctp dst port 2905
ether host 02:00:00:00:00:01
ether src 02:00:00:00:00:01
ether dst 02:00:00:00:00:01
ether src host 02:00:00:00:00:01
ether dst host ff:ff:ff:ff:ff:ff
ether host 0200.0000.0001
ether host 02-00-00-00-00-01
ether host 2.0.0.0.0.1
ether host 020000000001
ether host 2:0:0:0:0:1
link host 02:00:00:00:00:01
ether src or dst 02:00:00:00:00:01
not ether host 02:00:00:00:00:01
ether host 02:00:00:00:00:01 and not host 10.0.0.1
ether proto 0x0800
ether proto 0x86dd
ether proto 0x88cc
ether proto 0x8100
ether proto 0x88a8
ether proto 0x8863 or ether proto 0x8864
ether proto \\ip
ether proto \\ip6
ether proto \\arp
ether proto \\rarp
ether proto \\ipx
ether proto \\stp
ether proto \\netbeui
ether proto \\loopback
ether proto 0x42
ether proto 1501
ether proto 0x88f7
ether proto 0x8914
ip proto 6
ip proto 17
ip proto 47
ip proto 89
ip proto 50 or ip proto 51
ip proto \\tcp
ip proto \\udp
ip proto \\icmp
ip proto \\gre
ip proto \\ospf
ip6 proto 6
ip6 proto 58
ip6 proto \\udp
ip6 proto 44
proto 6
proto 47
proto \\sctp
iso proto 0x83
iso proto \\isis
isis proto 15
broadcast
ether broadcast
multicast
ether multicast
ip multicast
ip6 multicast
not broadcast and not multicast
ip and not multicast
not multicast and port 53
less 64
greater 1500
less 100 and udp
len > 1000
len <= 60
len >= 64 and len < 128
length = 60
len != 60
vlan
vlan 5
vlan 100
vlan 0
vlan 4095
vlan and ip
vlan 5 and ip
vlan 5 and udp port 53
vlan 5 and tcp
vlan and tcp port 80
vlan 100 and vlan 200
vlan && vlan 300 && ip
vlan 5 and vlan 6 and udp dst port 53
vlan and vlan and ip6
not vlan
not vlan and ip
ip or (vlan and ip)
udp port 53 or (vlan and udp port 53)
(vlan 5 and host 10.0.0.1) or (vlan 6 and host 10.0.0.1)
vlan and arp
vlan (5)
mpls
mpls 100
mpls 100000 and mpls 1024
mpls and ip
mpls and host 10.0.0.1
mpls and mpls 1024 and host 10.0.0.1
mpls and ip6
mpls and udp port 53
vlan 5 and mpls
vlan and mpls and tcp
pppoed
pppoes
pppoes 5
pppoes 0x27 and ip
pppoes and ip
pppoes and tcp port 80
pppoes and ip6
vlan and pppoes and ip
tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
tcp[tcpflags] & tcp-syn != 0
tcp[tcpflags] == tcp-syn
tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn
tcp[tcpflags] & (tcp-rst|tcp-ack) == (tcp-rst|tcp-ack)
tcp[13] & 2 != 0
tcp[13] == 2
tcp[13] == 18
tcp[13] & 4 != 0
tcp[13] = 0x12
tcp[0:2] = 80
tcp[2:2] = 443
tcp[2:2] > 1023
tcp[4:4] = 0
tcp[14:2] < 1000
tcp[12] >> 4 > 5
tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)
tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420
tcp[(tcp[12]>>2):4] = 0x16030100
tcp[tcp[12]>>2] = 22
udp[0:2] = 53
udp[2:2] = 53
udp[4:2] > 100
udp[8:2] = 0
udp[10] & 0x80 = 0
udp[10:2] & 0x8000 = 0
udp[8] = 0x40
icmp[icmptype] = icmp-echo
icmp[icmptype] == icmp-echoreply
icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply
icmp[0] = 8
icmp[0] == 3 and icmp[1] == 4
icmp[icmptype] = icmp-unreach
icmp[icmptype] = icmp-timxceed
icmp[icmpcode] = 4
icmp6[icmp6type] = icmp6-echo
icmp6[icmp6type] == icmp6-neighborsolicit
icmp6[icmp6type] = icmp6-routeradvert
icmp6[0] = 135 or icmp6[0] = 136
ip6[40] = 128
ip6[6] = 58
ip6[6] = 44
ip6[0] & 0xf0 = 0x60
ip6[7] = 255
ip[0] & 0xf != 5
ip[0] & 0xf > 5
ip[1] != 0
ip[1] & 0xfc == 0xb8
ip[2:2] > 576
ip[6:2] & 0x1fff = 0
ip[6:2] & 0x1fff != 0
ip[6] & 0x20 != 0
ip[6] & 0x40 != 0
ip[8] < 5
ip[8] = 1
ip[9] = 6
ip[9] != 6 and ip[9] != 17
ip[12:4] = 0x0a000001
ip[16] >= 224
ip[16:4] & 0xffff0000 = 0xc0a80000
ip[12:4] = ip[16:4]
ip[19] = 0xff
ether[0] & 1 = 0 and ip[16] >= 224
ether[0] & 1 != 0
ether[0] & 2 != 0
ether[0:4] = 0xffffffff and ether[4:2] = 0xffff
ether[6:4] = 0x02000000
ether[12:2] = 0x0800
ether[12:2] <= 1500
ether[12:2] > 0x5dc
ether[14] & 0xf0 = 0x40
ether[20:2] = 0x2000
ether[len - 1] = 0
link[12:2] = 0x0806
arp[6:2] = 1
arp[6:2] = 2
arp[7] = 1
arp[14:4] = arp[24:4]
arp host 10.0.0.1
arp src host 10.0.0.1
arp dst host 10.0.0.1
arp net 10.0.0.0/8
rarp host 10.0.0.1
rarp net 10
arp and ether broadcast
igmp[0] = 0x16
sctp[12] = 1
vrrp[0] & 0xf = 1
carp[0] = 0x21
pim[0] & 0xf = 0
decnet[0] = 1
1 = 1
len - 14 = ip[2:2]
ip[2:2] = len - 14
ip[2:2] + 14 < len
ip[8] * 2 = 128
ip[8] / 2 = 32
ip[8] % 2 = 1
ip[8] ^ 0xff = 191
ip[8] | 1 = 65
ip[8] << 8 = 0x4000
ip[8] >> 4 = 4
-ip[8] = 0xffffffc0
-1 = 0xffffffff
0xffffffff + 1 = 0
byte 0 = 2
byte 12 > 7
byte 23 < 17
tcp && port 80
tcp || udp
tcp && !port 22
(tcp)
((tcp))
(tcp port 80) and (host 10.0.0.1)
(tcp or udp) and port 53
tcp and (port 80 or port 443) and not host 10.0.0.1
not not tcp
not (not tcp)
tcp or udp and port 53
tcp and port 80 or udp and port 53
host 10.0.0.1 and not (port 80 or port 25)
(src net 10.0.0.0/8 or src net 172.16.0.0/12 or src net 192.168.0.0/16) and dst port 53
udp port 53 and host (10.0.0.1 or 10.0.0.2)
port 80 and not 443
tcp port 80 or (udp port 53) or 443
ip and (udp or tcp) and (port 53 or port 853)
ip[0] = 0x45 and udp dst port 53
tcp[tcpflags] & tcp-syn != 0 and not src and dst net 10.0.0.0/8
udp[8:4] & 0xffffff00 = 0x17fefd00
wlan host 02:00:00:00:00:01
fddi proto 0x800
tr src 02:00:00:00:00:01
ppp proto 0x800
`
  .split("\n")
  .filter((line) => line !== "");

/** Refused, with the code, and the position (from 0) that the error points at. */
export const REFUSED: readonly (readonly [string, FlowErrorCode, number])[] = [
  ["", "E_FLOW_SYNTAX", 0],
  ["   ", "E_FLOW_SYNTAX", 0],
  ["10.0.0.1", "E_FLOW_SYNTAX", 0],
  ["53", "E_FLOW_SYNTAX", 2],
  ["tcp 80", "E_FLOW_SYNTAX", 4],
  ["udp dst prot 53", "E_FLOW_SYNTAX", 13],
  ["tcp port", "E_FLOW_SYNTAX", 8],
  ["port 80 and", "E_FLOW_SYNTAX", 11],
  ["and port 80", "E_FLOW_SYNTAX", 0],
  ["(port 80", "E_FLOW_SYNTAX", 8],
  ["port 80)", "E_FLOW_SYNTAX", 7],
  ["()", "E_FLOW_SYNTAX", 1],
  ["tcp port 80 udp", "E_FLOW_SYNTAX", 12],
  ["tcp or 80", "E_FLOW_SYNTAX", 7],
  ["(udp port 53) or 54", "E_FLOW_SYNTAX", 17],
  ["port 80 and (53 or udp port 5)", "E_FLOW_SYNTAX", 19],
  ["host", "E_FLOW_SYNTAX", 4],
  ["ether", "E_FLOW_SYNTAX", 5],
  ["ip proto tcp", "E_FLOW_SYNTAX", 9],
  ["port 65536", "E_FLOW_SYNTAX", 0],
  ["portrange 1-70000", "E_FLOW_SYNTAX", 0],
  ["port 09", "E_FLOW_SYNTAX", 5],
  ["len > 4294967296", "E_FLOW_SYNTAX", 6],
  ["vlan 4096", "E_FLOW_SYNTAX", 0],
  ["mpls 1048576", "E_FLOW_SYNTAX", 0],
  ["pppoes 65536", "E_FLOW_SYNTAX", 0],
  ["net 10.0.0.0/33", "E_FLOW_SYNTAX", 13],
  ["net 10.0.0.1/8", "E_FLOW_SYNTAX", 4],
  ["net 10.0.0.1 mask 255.0.0.0", "E_FLOW_SYNTAX", 4],
  ["host 10.0.0.0/8", "E_FLOW_SYNTAX", 14],
  ["host 10.0.0.256", "E_FLOW_SYNTAX", 5],
  ["net 2001:db8::1/32", "E_FLOW_SYNTAX", 4],
  ["net 2001:db8::/129", "E_FLOW_SYNTAX", 4],
  ["host 2001:db8::/32", "E_FLOW_SYNTAX", 5],
  ["host 02:00:00:00:00:01", "E_FLOW_SYNTAX", 0],
  ["ip host ::1", "E_FLOW_SYNTAX", 0],
  ["ip6 host 10.0.0.1", "E_FLOW_SYNTAX", 0],
  ["tcp host 10.0.0.1", "E_FLOW_SYNTAX", 0],
  ["ether host 10.0.0.1", "E_FLOW_SYNTAX", 0],
  ["ip port 80", "E_FLOW_SYNTAX", 0],
  ["icmp port 80", "E_FLOW_SYNTAX", 0],
  ["port 10.0.0.1", "E_FLOW_SYNTAX", 5],
  ["port ::1", "E_FLOW_SYNTAX", 5],
  ["tcp proto 6", "E_FLOW_SYNTAX", 0],
  ["arp proto 6", "E_FLOW_SYNTAX", 0],
  ["tcp multicast", "E_FLOW_SYNTAX", 0],
  ["ip6 broadcast", "E_FLOW_SYNTAX", 0],
  ["ether[0:3] = 1", "E_FLOW_SYNTAX", 8],
  ["ether[0", "E_FLOW_SYNTAX", 7],
  ["ether[]", "E_FLOW_SYNTAX", 6],
  ["tcp[13]", "E_FLOW_SYNTAX", 7],
  ["tcp[13] & 2", "E_FLOW_SYNTAX", 11],
  ["iso[0] = 1", "E_FLOW_SYNTAX", 0],
  ["len = 5 / 0", "E_FLOW_SYNTAX", 10],
  ["len = 5 % 0", "E_FLOW_SYNTAX", 10],
  ["len = 1 << 32", "E_FLOW_SYNTAX", 11],
  ["mpls and vlan", "E_FLOW_SYNTAX", 9],
  ["pppoes and ether host 02:00:00:00:00:01", "E_FLOW_SYNTAX", 11],
  ["host 1:2:3", "E_FLOW_SYNTAX", 5],
  ["tcp port 80;", "E_FLOW_SYNTAX", 11],
  ["port 80 \u00e4", "E_FLOW_SYNTAX", 8],
  ["llc foo", "E_FLOW_SYNTAX", 4],
  ["port domain", "E_FLOW_NAME", 5],
  ["tcp port http", "E_FLOW_NAME", 9],
  ["port https or ssh", "E_FLOW_NAME", 5],
  ["port 80-90", "E_FLOW_NAME", 5],
  ["portrange http-https", "E_FLOW_NAME", 10],
  ["host example.org", "E_FLOW_NAME", 5],
  ["host localhost", "E_FLOW_NAME", 5],
  ["src gatekeeper", "E_FLOW_NAME", 4],
  ["net ucb-ether", "E_FLOW_NAME", 4],
  ["ether host router", "E_FLOW_NAME", 11],
  ["ip proto \\nosuch", "E_FLOW_NAME", 9],
  ["ether proto \\nosuch", "E_FLOW_NAME", 12],
  ["gateway snup", "E_FLOW_UNSUPPORTED", 0],
  ["ip protochain 6", "E_FLOW_UNSUPPORTED", 3],
  ["protochain 6", "E_FLOW_UNSUPPORTED", 0],
  ["inbound", "E_FLOW_UNSUPPORTED", 0],
  ["udp and outbound", "E_FLOW_UNSUPPORTED", 8],
  ["ifindex 2", "E_FLOW_UNSUPPORTED", 0],
  ["ip broadcast", "E_FLOW_UNSUPPORTED", 0],
  ["geneve", "E_FLOW_UNSUPPORTED", 0],
  ["geneve 5 and ip", "E_FLOW_UNSUPPORTED", 0],
  ["type mgt", "E_FLOW_UNSUPPORTED", 0],
  ["wlan addr1 02:00:00:00:00:01", "E_FLOW_UNSUPPORTED", 5],
  ["decnet host 1.2", "E_FLOW_UNSUPPORTED", 0],
  ["radio[0] = 1", "E_FLOW_UNSUPPORTED", 0],
  ["vpi 5", "E_FLOW_UNSUPPORTED", 0],
  ["fisu", "E_FLOW_UNSUPPORTED", 0],
  ["ifname eth0", "E_FLOW_UNSUPPORTED", 0],
  ["byte 5 & 3", "E_FLOW_UNSUPPORTED", 7],
  ["mpls and arp", "E_FLOW_UNSUPPORTED", 9],
  ["host $5", "E_FLOW_UNSUPPORTED", 5],
  ["tcp and udp", "E_FLOW_NEVER", 0],
  ["ip and ip6", "E_FLOW_NEVER", 0],
  ["port 5 and not port 5", "E_FLOW_NEVER", 0],
  ["ether proto 1500", "E_FLOW_NEVER", 0],
  ["ip proto 300", "E_FLOW_NEVER", 0],
];
