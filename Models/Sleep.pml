/* How the two ends of a channel sleep and wake each other: Channel/ChannelEnds.swift (Doorbell, prepareToSleep) and the loops
 * around it, Host/QueueLoop.swift and Stacks/StackInstance.swift. The command channel does the same (CommandClient,
 * CommandServerEnd).
 *
 * Each end publishes things in one ring and takes those of the other ring. Memory is that of x86: StoreBuffers.h.
 *
 * Property: no lost wake-up. Both ends publish THINGS each and end when they have taken as many: whoever sleeps for ever
 * beside something that was published for it is a state in which nothing can go on (an invalid end state). The second that
 * the host sleeps at most (WakeSet.wait) is left out: nothing may depend on it.
 *
 * With DEATHS the host is killed at any step and another begins (Ownership.pml has the rest of that): it rings in any case.
 *
 * A variant that must fail is named by a word: see model.sh.
 */
#ifndef THINGS
#define THINGS 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#define HOST 0
#define INSTANCE 1
#define OTHER (1 - self)

/* Each end's: how many things it has published, and whether it says that it sleeps. */
#define INDEX(end) (2 * end)
#define SLEEPS(end) (2 * end + 1)
#define WORDS 4
#define STORES 4
#include "StoreBuffers.h"

/* An end's doorbell: the host's an eventfd watched by its edges, the instance's a socket with something to read. */
bool rung[2];
/* What an end has taken: in the record, for the next host. */
byte took[2];
byte deaths = 0;
bool isDying = false;
bool hostRuns = true;
bool hostIsDone = false;

/* Doorbell.signal */
inline signal() {
#ifdef CLEAR_AFTER_RING
  FENCE;
  rung[OTHER] = true;
  store(SLEEPS(OTHER), 0)
#else
  store(SLEEPS(OTHER), 0); /* relaxed_store32(peerSleeps, 0) */
  FENCE;                   /* send and write take a lock */
  rung[OTHER] = true
#endif
}

proctype End(byte self) {
  byte i, seen, published;
  {
    if
    :: self == HOST && deaths > 0 ->
      /* A new host. All stores of the one before are in memory. */
      published = memory[INDEX(HOST)];
#ifndef RING_AFTER_RECOVERY_LEFT_OUT
      signal() /* Doorbell.ringAlways: it may have died between publishing and ringing */
#endif
    :: else
    fi;
    do
    :: took[self] == THINGS && published == THINGS -> break
    :: else ->
      load(INDEX(OTHER), seen); /* RingConsumer.pop: all that is there */
      d_step { took[self] = seen; seen = 0 };
      if
      :: published < THINGS ->
        store(INDEX(self), published + 1); /* RingProducer.push: release_store32(own, next) */
        published++;
        /* Doorbell.ring */
#ifndef RING_FENCE_LEFT_OUT
        FENCE; /* full_fence() */
#endif
        load(SLEEPS(OTHER), seen); /* relaxed_load32(peerSleeps) */
        if
        :: seen != 0 -> seen = 0; signal()
        :: else
        fi
      :: true ->
        /* prepareToSleep: announceSleep, then isEmpty once more. */
#ifdef LOOK_BEFORE_ANNOUNCE
        load(INDEX(OTHER), seen);
        store(SLEEPS(self), 1);
        FENCE;
#else
        store(SLEEPS(self), 1); /* relaxed_store32(ownSleeps, 1) */
#ifndef SLEEP_FENCE_LEFT_OUT
        FENCE; /* full_fence() */
#endif
        load(INDEX(OTHER), seen); /* acquire_load32(peer) */
#endif
        if
        :: seen == took[self] ->
#ifdef ANSWER_BEFORE_SLEEP
          rung[self] = false;
#endif
          /* epoll_wait, or poll: these take locks too. */
          FENCE;
          if
          :: d_step { rung[self] -> rung[self] = false } /* an edge is told of once; clearDoorbell takes what was rung */
          :: published < THINGS -> skip                  /* something else: a packet from the wire, the application */
          :: took[self] == THINGS -> skip                /* nothing is going to come */
          fi
        :: else
        fi;
        seen = 0;
        store(SLEEPS(self), 0) /* awake */
      fi
    od;
    if :: self == HOST -> hostIsDone = true :: else fi
  } unless { self == HOST && isDying };
  if :: self == HOST -> hostRuns = false :: else fi
}

active proctype Supervisor() {
  atomic { run Drain(HOST); run Drain(INSTANCE); run End(INSTANCE); run End(HOST) };
end:
  do
  :: atomic { deaths < DEATHS && !hostIsDone -> isDying = true };
    !hostRuns && buffer[HOST].count == 0; /* it is no more; its stores are in memory */
    d_step { deaths++; isDying = false; hostRuns = true };
    run End(HOST)
  :: hostIsDone -> break
  od
}
