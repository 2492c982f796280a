/* Completions that find no room: Host/PacketPath.complete keeps them until the instance has taken some, and the instance
 * wakes the host where it takes from a ring that was full (Channel/ChannelEnds.swift, InstanceEnd.ring). Memory: StoreBuffers.h.
 *
 * Property: no lost wake-up. The host has THINGS completions for a ring of SLOTS and both ends sleep when they have nothing to
 * do; they end when the instance has them all.
 */
#ifndef THINGS
#define THINGS 4
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#define HOST 0
#define INSTANCE 1
#define OTHER (1 - self)
#define PRODUCED 0
#define CONSUMED 1
#define SLEEPS(end) (2 + end)
#define WORDS 4
#define STORES 4
#include "StoreBuffers.h"
bool rung[2];

inline signal() {
  store(SLEEPS(OTHER), 0);
  FENCE;
  rung[OTHER] = true
}
inline ring() {
  FENCE;
  load(SLEEPS(OTHER), seen);
  if
  :: seen != 0 -> seen = 0; signal()
  :: else
  fi
}

/* PacketPath.complete, then QueueLoop.sleep. */
proctype Host() {
  byte i, seen, produced, self = HOST;
  do
  :: produced == THINGS -> break
  :: else ->
    load(CONSUMED, seen);
    if
    :: produced - seen < SLOTS ->
      /* RingProducer.push: as many as there is room for. */
      d_step { produced = (seen + SLOTS < THINGS -> seen + SLOTS : THINGS); seen = 0 };
      store(PRODUCED, produced);
      ring()
    :: else ->
      seen = 0;
      /* prepareToSleep */
      store(SLEEPS(HOST), 1);
      FENCE;
#ifndef ROOM_NOT_LOOKED_AT
      load(CONSUMED, seen); /* a completion waits: is there room now? */
#else
      seen = produced - SLOTS;
#endif
      if
      :: produced - seen == SLOTS ->
        FENCE;
        d_step { rung[HOST] -> rung[HOST] = false }
      :: else
      fi;
      seen = 0;
      store(SLEEPS(HOST), 0)
    fi
  od
}

/* InstanceEnd: pop, then ring. */
proctype Instance() {
  byte i, seen, taken, told, published, self = INSTANCE;
  do
  :: taken == THINGS -> break
  :: else ->
    load(PRODUCED, seen);
    if
    :: seen > taken ->
      if
      :: d_step { taken = seen; seen = 0 }
      :: d_step { taken++; seen = 0 } /* its burst has room for one only */
      fi;
      store(CONSUMED, taken); /* release_store32(own, next) */
#ifndef TAKEN_FENCE_LEFT_OUT
      FENCE; /* what was taken is seen before it is asked whether the ring was full */
#endif
      load(PRODUCED, published);
      /* completion.published &- completionsTaken > completion.mask */
      if
      :: published - told >= SLOTS -> d_step { told = taken; published = 0 }; ring()
      :: else -> d_step { told = taken; published = 0 }
      fi
    :: else ->
      seen = 0;
      store(SLEEPS(INSTANCE), 1);
      FENCE;
      load(PRODUCED, seen);
      if
      :: seen == taken ->
        FENCE;
        d_step { rung[INSTANCE] -> rung[INSTANCE] = false }
      :: else
      fi;
      seen = 0;
      store(SLEEPS(INSTANCE), 0)
    fi
  od
}

init { atomic { run Drain(HOST); run Drain(INSTANCE); run Host(); run Instance() } }
