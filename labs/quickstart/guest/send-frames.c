/* send-frames INTERFACE COUNT PAUSE_US HEX...  sends raw Ethernet frames, all of them COUNT times (0: for ever).
 * Runs inside a guest to show that the host's filter holds; it has no other use. */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: send-frames INTERFACE COUNT PAUSE_US HEX...\n");
        return 64;
    }
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(argv[1]), .sll_halen = 6};
    long count = atol(argv[2]), pause_us = atol(argv[3]), sent = 0;
    for (long round = 0; count == 0 || round < count; round++) {
        for (int i = 4; i < argc; i++) {
            unsigned char frame[2048];
            size_t length = 0;
            for (const char *p = argv[i]; p[0] && p[1] && length < sizeof frame; p += 2) {
                unsigned byte;
                if (sscanf(p, "%2x", &byte) != 1) {
                    fprintf(stderr, "frame %d is not hexadecimal\n", i - 3);
                    return 64;
                }
                frame[length++] = (unsigned char)byte;
            }
            if (sendto(fd, frame, length, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)length)
                sent++;
        }
        if (pause_us)
            usleep((useconds_t)pause_us);
    }
    printf("sent %ld\n", sent);
    return sent == 0;
}
