/* Answers ARP requests and pings for one IPv4 address, in place: the request's own segment goes back as the answer.

     cc -O2 -I Sources/CMartletChannel/include Examples/icmp-echo.c -o icmp-echo
     ./icmp-echo 10.0.0.3 /run/martlet.sock                             attaches by itself
     martlet attach --socket /run/martlet.sock --stack ./icmp-echo --address 10.0.0.3/24 -- 10.0.0.3 */
#include <martlet_channel.h>

#include <arpa/inet.h>

enum { BURST = 64, TAGS = 1024 };

static struct martlet_instance nic;
static uint8_t own_address[4];

/* Segments on their way out, by tag, and the tags that are free. */
static struct { uint32_t segment, queue; } sent[TAGS];
static uint16_t free_tags[TAGS];
static int free_count;
static unsigned long answered, ignored;

static int is(const uint8_t *at, int high, int low) { return at[0] == high && at[1] == low; }

static void swap(uint8_t *a, uint8_t *b, int count) {
  for (int i = 0; i < count; i++) {
    uint8_t byte = a[i];
    a[i] = b[i];
    b[i] = byte;
  }
}

/* An ARP request (RFC 826) for the own address becomes its answer. */
static int answer_arp(uint8_t *frame, uint32_t length) {
  uint8_t *arp = frame + 14;
  if (length < 42 || !is(arp, 0, 1) || !is(arp + 2, 8, 0) || !is(arp + 4, 6, 4) || !is(arp + 6, 0, 1)) return 0;
  if (memcmp(arp + 24, own_address, 4) != 0) return 0;
  arp[7] = 2;
  memcpy(arp + 18, arp + 8, 10);         /* the sender becomes the target */
  memcpy(arp + 8, nic.mac, 6);
  memcpy(arp + 14, own_address, 4);
  memcpy(frame, frame + 6, 6);
  memcpy(frame + 6, nic.mac, 6);
  return 1;
}

/* An echo request (RFC 792) to the own address becomes its answer. */
static int answer_ping(uint8_t *frame, uint32_t length) {
  uint8_t *ip = frame + 14;
  if (length < 42 || ip[0] >> 4 != 4 || ip[9] != 1 || memcmp(ip + 16, own_address, 4) != 0) return 0;
  uint32_t header = (ip[0] & 15u) * 4, total = (uint32_t)ip[2] << 8 | ip[3];
  int is_fragment = (ip[6] & 0x3f) != 0 || ip[7] != 0;
  if (is_fragment || header < 20 || total < header + 8 || 14 + total > length) return 0;
  uint8_t *icmp = ip + header;
  if (!is(icmp, 8, 0)) return 0;
  icmp[0] = 0;
  /* The type's change by 0x0800 in the sum (RFC 1624). */
  uint32_t sum = ((uint32_t)icmp[2] << 8 | icmp[3]) + 0x0800;
  sum = (sum & 0xffff) + (sum >> 16);
  icmp[2] = (uint8_t)(sum >> 8);
  icmp[3] = (uint8_t)sum;
  swap(ip + 12, ip + 16, 4);             /* the header's sum stays as it is */
  memcpy(frame, frame + 6, 6);
  memcpy(frame + 6, nic.mac, 6);
  return 1;
}

static int make_answer(uint8_t *frame, uint32_t length) {
  if (length < 14) return 0;
  if (is(frame + 12, 0x08, 0x06)) return answer_arp(frame, length);
  if (is(frame + 12, 0x08, 0x00)) return answer_ping(frame, length);
  return 0;
}

/* Gives one segment back. The ring has a slot for each segment that the program can have: it waits for the host only
   where the host lags behind. */
static void give_back(uint32_t queue, const struct martlet_descriptor *piece) {
  while (martlet_give_back(&nic, queue, piece, 1) == 0 && !martlet_closed(&nic)) {
    martlet_ring(&nic);
    martlet_sleep(&nic, 1);
  }
}

/* One piece that is a packet by itself: sent back as its answer, or given back. */
static void handle(uint32_t queue, const struct martlet_descriptor *piece, int is_whole) {
  struct martlet_descriptor answer = *piece;
  if (is_whole && free_count > 0 && make_answer(martlet_data(&nic, piece), piece->length)) {
    answer.flags = 0;
    answer.tag = free_tags[free_count - 1];
    if (martlet_send(&nic, queue, &answer, 1) == 1) {
      free_count--;
      sent[answer.tag].segment = piece->segment;
      sent[answer.tag].queue = queue;
      answered++;
      return;
    }
  }
  ignored++;
  give_back(queue, piece);
}

static int turn(uint32_t queue) {
  struct martlet_descriptor burst[BURST];
  int done = martlet_completions(&nic, queue, burst, BURST);
  for (int i = 0; i < done; i++) {
    uint16_t tag = burst[i].tag;
    if (tag >= TAGS || sent[tag].segment == UINT32_MAX) continue;
    struct martlet_descriptor piece = {sent[tag].segment, 0, 0, 0, 0};
    give_back(sent[tag].queue, &piece);
    sent[tag].segment = UINT32_MAX;
    free_tags[free_count++] = tag;
  }
  int count = martlet_receive(&nic, queue, burst, BURST);
  int starts = 1;
  for (int i = 0; i < count; i++) {
    int ends = !(burst[i].flags & MARTLET_MORE);
    if (!(burst[i].flags & MARTLET_OFFLOAD)) {
      handle(queue, &burst[i], starts && ends);
      starts = ends;
    }
  }
  return done > 0 || count > 0;
}

int main(int argc, char **argv) {
  char request[128];
  const char *inherited = getenv("MARTLET_SOCKET");
  if (argc < 2 || argc > 3 || inet_pton(AF_INET, argv[1], own_address) != 1 || (argc == 2 && !inherited)) {
    fprintf(stderr, "usage: icmp-echo ADDRESS SOCKET\n");
    return 64;
  }
  snprintf(request, sizeof request, "name=icmp-echo claims=ipv4:%s", argv[1]);
  int result = argc == 3 ? martlet_attach(&nic, argv[2], request) : martlet_adopt(&nic, atoi(inherited));
  if (result < 0) {
    fprintf(stderr, "icmp-echo: not attached: %s\n", nic.reason);
    return 1;
  }
  if (!nic.is_shared) {
    fprintf(stderr, "icmp-echo: received segments can be sent on a shared NIC only\n");
    return 1;
  }
  for (int tag = 0; tag < TAGS; tag++) {
    sent[tag].segment = UINT32_MAX;
    free_tags[free_count++] = (uint16_t)tag;
  }
  while (!martlet_closed(&nic)) {
    int worked = 0;
    for (uint32_t queue = 0; queue < nic.queue_count; queue++) worked |= turn(queue);
    martlet_ring(&nic);
    if (!worked) martlet_sleep(&nic, -1);
  }
  printf("icmp-echo: %lu answered, %lu ignored; closed: %s\n", answered, ignored, martlet_closed(&nic));
  martlet_detach(&nic);
  return 0;
}
