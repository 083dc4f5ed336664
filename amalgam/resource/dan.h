/* dan.h - a network that a CNI plugin has written down instead of making it: directly attachable network.
 *
 * A JSON file for each pod, in the form that Kata Containers reads, names taps of the host and what the guest
 * is to be told about each:
 *
 *   { "netns": "/run/netns/x",       where the taps are; absent: the host's own
 *     "devices": [ {
 *       "name": "eth0",              in the guest
 *       "guest_mac": "02:..:07",     absent: made from the tap's
 *       "device": { "type": "host-tap", "tap_name": "tap7" },
 *       "network_info": {
 *         "interface": { "ip_addresses": ["10.0.0.2/24"], "mtu": 1500, "flags": 0 },
 *         "routes": [ { "dest": "", "gateway": "10.0.0.1", "source": "", "scope": 0, "flags": 0,
 *                       "mtu": 0 } ],
 *         "neighbors": [ { "ip_address": "10.0.0.1", "hardware_addr": "02:..:01", "state": 128,
 *                          "flags": 0 } ] } } ] }
 *
 * Members that are not named here mean nothing. Of the kinds of devices this is the one. */
#pragma once

#include "amalgam/resource/net.h"

#define DAN_MAX_BYTES (1u << 20)

/* Attach to all that the file names. Afterwards n is as net_open() and net_scan() would leave it, and fixed;
 * net_close() lets the taps go. -ENOENT: no such file. */
INTERNAL MUST_USE int dan_open(struct net *n, const char *file, struct err *e);
