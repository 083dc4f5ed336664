/* events.h - telling containerd what happened: its event service, over ttRPC.
 *
 * Service containerd.services.events.ttrpc.v1.Events, method Forward, on the socket that containerd
 * names in TTRPC_ADDRESS. Events are packed and stamped when they are published, wait in one queue, and
 * leave it in that order: one at a time, the next when the one before was accepted.
 *
 * The connection is made when there is something to send. That the peer closes it, as containerd does
 * when it stops, costs nothing: the next event opens another. An event that could not be delivered is
 * tried again SHIM_EVENTS_TRIES times, after 1, 2, 3, 4 and 5 seconds, then dropped, as is one that
 * containerd calls invalid (at once) and one that finds SHIM_EVENTS_MAX others waiting: older ones have
 * made promises that newer ones build upon (start before exit). What is lost this way can still be asked
 * for with State and Wait. The log has one line for the first of several dropped in a row.
 *
 * Used from the loop's thread only; nothing blocks but shim_events_flush(), up to its deadline. */
#pragma once

#include "amalgam/wire/ttrpc.h"

#define SHIM_EVENTS_MAX    2048 /* waiting */
#define SHIM_EVENTS_TRIES  5    /* after the first */
#define SHIM_EVENTS_CALL_S 5    /* for containerd to answer */

struct shim_event;

struct shim_events {
	struct loop *loop;
	char *address; /* without unix://; "" = events go nowhere */
	char *ns;
	struct shim_event *first, **last; /* the first is the one being sent */
	unsigned waiting;
	unsigned tries;      /* failures of the first */
	bool in_flight;
	bool proven;         /* the connection has delivered something */
	bool dropping;       /* and the log knows */
	uint64_t retry_ns;   /* of the first wait; 1 s but in tests */
	struct ttrpc_conn *conn; /* NULL = none */
	struct timer timer;  /* to send the first */
};

/* address: a path, unix:// before it or not, or @name in the abstract namespace; "" or NULL: what is
 * published is forgotten. */
INTERNAL void shim_events_init(struct shim_events *ev, struct loop *l, const char *address,
			       const char *ns);
/* What is still waiting is lost. */
INTERNAL void shim_events_fini(struct shim_events *ev);

/* topic: "/tasks/start"; type: "containerd.events.TaskStart". Never fails, never calls out. */
INTERNAL void shim_events_publish(struct shim_events *ev, const char *topic, const char *type,
				  const ProtobufCMessage *event);

/* Run the loop, and so everything else on it, until nothing waits or the deadline (absolute monotonic)
 * has passed. Returns how many events still wait. */
INTERNAL unsigned shim_events_flush(struct shim_events *ev, uint64_t deadline_ns);
