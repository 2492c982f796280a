/* Who owns a segment and a transmit tag, through the death of the driver host at any step and its recovery from the record.
 *
 * One queue of a channel: device, driver host, stack instance and supervisor. With RECEIVE the units are segments (free ring,
 * device, receive ring); with COPIED too, where instances share the NIC and the host copies what it has received into
 * segments of their own, of which those that find no room in the receive ring wait in the record's burst; with TRANSMIT they
 * are tags of packets (transmit ring, device, completion ring). What is between two
 * semicolons is a store that another process, or the next host, can see: a host can end between any two. A killed process's
 * stores get to memory in their order, so that the record needs no store buffers here.
 *
 * Properties (assertions):
 * - a unit is in one place only: host, device, a ring or the instance, and the record says whose it is;
 * - none is lost: whenever the host begins something the record and the truth agree, so that each unit has a way on;
 * - the device writes only to segments that were given to it and not taken back since, and to none once memory is freed;
 * - it reads a packet only until the instance has been told that it was sent;
 * - the host never refuses what a correct instance does, nor the record of a host that was killed, and each packet is
 *   completed exactly once.
 *
 * A variant that must fail is named by a word: see model.sh.
 */
#ifdef COPIED
#define RECEIVE
#endif
#ifndef SLOTS
#define SLOTS 2 /* of each ring; at most 4 */
#endif
#ifndef UNITS
#define UNITS 2 /* 2 or 3 */
#endif
#ifndef BURST
#define BURST 2
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#define INDEXES (2 * SLOTS) /* indices run free, here modulo this */
#define UP(index, n) ((index + n) % INDEXES)
#define FILLED(r) ((r.produced + INDEXES - r.consumed) % INDEXES)
#define ROOM (SLOTS - (next + INDEXES - toInstance.consumed) % INDEXES)
#define AT(r, u, k) (FILLED(r) > k && r.slot[(r.consumed + k) % SLOTS] == u)
#define IN(r, u) (AT(r, u, 0) + AT(r, u, 1) + AT(r, u, 2) + AT(r, u, 3))

#define HOST 0
#define DEVICE 1
#define INSTANCE 2

/* Channel/Ring.swift: slots and both indices, in memory that host and instance share. */
typedef Ring {
  byte slot[SLOTS];
  byte produced;
  byte consumed
};
Ring toHost;     /* the free ring, or the transmit ring */
Ring toInstance; /* the receive ring, or the completion ring */

/* Host/Record/PathRecord.swift: made by the supervisor, outlives a host. */
byte owner[UNITS]; /* a segment's; a tag's is HOST while it is outstanding, else INSTANCE */
byte taken[BURST]; /* the burst that is taken from the instance, and the one that it is given */
byte given[BURST];
byte takenPlace;   /* how far the rings have come */
byte givenPlace;
byte word;         /* the hand-over under way: one store; 0 for none */
#define TAKING 1
#define GIVING 2
#define WORD(flow, n, index) (flow + 3 * ((n) * INDEXES + (index)))
#define FLOW (word % 3)
#define COUNT (word / 3 / INDEXES)
#define PLACE (word / 3 % INDEXES)

/* The truth. */
bool holds[UNITS];    /* the instance has the segment, or may use the packet's memory again */
bool posted[UNITS];   /* the device may write to it, or read it */
bool finished[UNITS]; /* the device has said that it is done with it */
bool busMaster = true;
bool isFreed = false; /* the memory is another's */
bool deviceFailed = false;
bool instanceDead = false;
bool supervisorDead = false;

byte faults = 0;
byte generation = 0; /* of the host that may run: the others are killed */
byte started = 0;    /* hosts that have been started, and that are no more */
byte ended = 0;
#ifdef KILL_LEFT_OUT
#define KILLED(g) (generation > g + 1) /* a host that hangs, and goes on beside the next one */
#define LAST 2
#else
#define KILLED(g) (generation > g)
#define LAST 1
#endif

#define FREE(u) (!posted[u] && !finished[u] && !holds[u] && IN(toHost, u) == 0 && IN(toInstance, u) == 0)
#define WITH_INSTANCE(u) (holds[u] + IN(toHost, u) + IN(toInstance, u))

/* Nobody else has what the host writes to. */
#define checkCopied() assert(FREE(unit))

/* When the host begins something, nothing is in its own variables but completions that it has not handed over. */
inline checkRecord() {
  unit = 0;
  do
  :: unit < UNITS && !instanceDead ->
#ifdef RECEIVE
    assert(owner[unit] != HOST || FREE(unit));
    assert(owner[unit] != DEVICE || (posted[unit] || finished[unit]) && WITH_INSTANCE(unit) == 0);
    assert(owner[unit] != INSTANCE || WITH_INSTANCE(unit) == 1 && !posted[unit] && !finished[unit]);
#else
    /* Outstanding: the device has it or is done with it, or it waits to be handed over. */
    assert(owner[unit] != HOST || WITH_INSTANCE(unit) == 0 && (posted[unit] || finished[unit] || waits[unit]));
    assert(owner[unit] != INSTANCE || WITH_INSTANCE(unit) == 1);
#endif
    unit++
  :: else -> break
  od;
  unit = 0
}

#define MARK(burst, whose) \
  do \
  :: position < count -> d_step { owner[burst[position]] = whose; position++ } \
  :: else -> break \
  od; \
  position = 0
/* Nobody reads a burst again whose hand-over has ended, nor a slot that was consumed: zeros make fewer states. */
#define END(burst) d_step { word = 0; burst[0] = 0; burst[BURST - 1] = 0 }
#ifdef COPIED
#define END_GIVING word = 0 /* what had no room is still there */
#else
#define END_GIVING END(given)
#endif
inline publishTaken() {
  d_step {
    do
    :: toHost.consumed != nextTaken -> toHost.slot[toHost.consumed % SLOTS] = 0; toHost.consumed = UP(toHost.consumed, 1)
    :: else -> break
    od
  }
}

/* Units in given[0..count) go to the instance: received segments, or completions. PathRecord's steps. */
inline give() {
#ifdef MARK_BEFORE_LOG
  MARK(given, INSTANCE);
#endif
#ifndef COPY_AFTER_LOG
  copy();
#endif
#ifndef LOG_LEFT_OUT
#ifdef INDEX_BEFORE_COUNT
  word = WORD(GIVING, 0, UP(next, count));
#endif
  word = WORD(GIVING, logged, UP(next, logged)); /* begin */
#endif
#ifdef COPY_AFTER_LOG
  copy();
#endif
  MARK(given, INSTANCE);
  d_step { next = UP(next, count); logged = 0 };
#ifdef END_BEFORE_COMMIT
  word = 0;
#endif
#ifdef SHIFT_BEFORE_END
  removeFirst();
#endif
  givenPlace = next;          /* commit */
  toInstance.produced = next; /* RingProducer.push: release_store32(own, next) */
  END_GIVING
}

#ifdef COPIED
/* What had no room moves to the burst's front. */
inline removeFirst() {
  d_step {
    do
    :: position < count -> filled[given[position]] = false; position++
    :: else -> break
    od;
    position = 0;
    delivering = delivering - count;
    if :: delivering > 0 -> given[0] = given[count] :: else -> given[0] = 0 fi;
    given[BURST - 1] = 0
  }
}
#endif

/* Into the ring's slots behind its index, where the instance does not look yet. */
inline copy() {
  d_step {
    position = 0;
    do
    :: position < count -> toInstance.slot[(next + position) % SLOTS] = given[position]; position++
    :: else -> break
    od;
    position = 0
  }
}

/* RingConsumer.pop into the record's burst, checked (SegmentLedger.takeBack), then PathRecord's steps. */
inline take() {
  d_step {
    toHost.produced != nextTaken ->
    checkRecord();
    do
    :: count < BURST && UP(nextTaken, count) != toHost.produced ->
      taken[count] = toHost.slot[(nextTaken + count) % SLOTS];
      assert(owner[taken[count]] == INSTANCE); /* the host does not refuse what is right */
      count++
    :: else -> break
    od;
    nextTaken = UP(nextTaken, count)
  };
#ifdef MARK_BEFORE_LOG
  MARK(taken, HOST);
#endif
#ifdef PUBLISH_BEFORE_LOG
  publishTaken();
#endif
#ifndef LOG_LEFT_OUT
  word = WORD(TAKING, count, nextTaken); /* begin */
#endif
  MARK(taken, HOST);
#ifdef END_BEFORE_COMMIT
  word = 0;
#endif
  takenPlace = nextTaken;      /* commit */
  publishTaken();              /* RingConsumer.pop: release_store32(own, next) */
  word = 0;                    /* end */
#ifdef TRANSMIT
  /* The driver's transmit. */
  do
  :: position < count -> d_step { posted[taken[position]] = true; position++ }
  :: else -> break
  od;
  position = 0;
#endif
  d_step { count = 0; taken[0] = 0; taken[BURST - 1] = 0 }
}

/* PathRecord.finish: what a host that was killed has left is never refused. */
#define ACCEPT(place) assert(COUNT > 0 && (place == PLACE || UP(place, COUNT) == PLACE))
inline acceptTaken() {
  d_step {
    ACCEPT(takenPlace);
    do
    :: position < count -> assert(owner[taken[position]] != DEVICE); position++ /* SegmentLedger.redoTakingBack */
    :: else -> break
    od;
    position = 0
  }
}

/* What a new host does before its first turn (PathRecord.reconcile). It may be killed here too. */
inline recover() {
#ifndef REDO_LEFT_OUT
  /* The hand-over that had begun is done. */
  count = COUNT;
  if
  :: FLOW == TAKING -> acceptTaken(); MARK(taken, HOST); takenPlace = PLACE; END(taken)
  :: FLOW == GIVING -> ACCEPT(givenPlace); MARK(given, INSTANCE); givenPlace = PLACE; END_GIVING
  :: else
  fi;
  count = 0;
#else
  word = 0;
#endif
#ifdef RECEIVE
  /* The device has been reset: what was its own is the host's. */
  do
  :: position < UNITS -> d_step { if :: owner[position] == DEVICE -> owner[position] = HOST :: else fi; position++ }
  :: else -> break
  od;
  position = 0;
#endif
  d_step { nextTaken = takenPlace; next = givenPlace };
  publishTaken(); /* the one before may have ended before it published them */
  toInstance.produced = next;
#ifdef TRANSMIT
  /* Outstanding packets are completed, sent or not (OrphanedTags), as the ring has room for them. */
  d_step {
    do
    :: position < UNITS -> waits[position] = (owner[position] == HOST); position++
    :: else -> break
    od;
    position = 0
  }
#endif
}

#if UNITS > 2
#define ANY(which) (which[0] || which[1] || which[2])
#else
#define ANY(which) (which[0] || which[1])
#endif

proctype Host(byte self) {
  byte count, logged, position, unit, next, nextTaken;
#ifdef TRANSMIT
  bool waits[UNITS];
#endif
#ifdef COPIED
  bool filled[UNITS];
  byte delivering;
#endif
  {
    recover();
    do
    :: take()
#ifdef COPIED
    :: /* InstancePort.copy: a packet into a free segment, which is the host's until it is given. */
      d_step {
        delivering < BURST ->
        do
        :: unit < UNITS && (owner[unit] != HOST || filled[unit]) -> unit++
        :: else -> break
        od;
        if
        :: unit < UNITS -> checkCopied(); filled[unit] = true; given[delivering] = unit; delivering++
        :: else
        fi;
        unit = 0
      }
    :: /* InstancePort.pushDelivered */
      d_step {
        delivering > 0 && ROOM > 0 ->
        checkRecord();
        count = (delivering < ROOM -> delivering : ROOM);
        logged = count
      };
      give();
#ifndef SHIFT_BEFORE_END
      removeFirst();
#endif
      count = 0
#elif defined(RECEIVE)
    :: /* SegmentLedger.lend, then the driver's postReceive. */
      if
      :: d_step { owner[0] == HOST -> checkRecord(); owner[0] = DEVICE }; d_step { assert(FREE(0)); posted[0] = true }
      :: d_step { owner[1] == HOST -> checkRecord(); owner[1] = DEVICE }; d_step { assert(FREE(1)); posted[1] = true }
#if UNITS > 2
      :: d_step { owner[2] == HOST -> checkRecord(); owner[2] = DEVICE }; d_step { assert(FREE(2)); posted[2] = true }
#endif
      fi
    :: /* The driver's receive: what the device has filled, as far as there is room for it. */
      d_step {
        ANY(finished) && ROOM > 0 ->
        checkRecord();
        do
        :: unit < UNITS ->
          if
          :: finished[unit] && count < BURST && count < ROOM -> finished[unit] = false; given[count] = unit; count++
#ifdef LOG_MORE_THAN_ROOM
          :: finished[unit] && count == ROOM && count < BURST && logged == 0 ->
            finished[unit] = false; given[count] = unit; logged = count + 1 /* it is in the burst, finds no room, and is the host's again */
#endif
          :: else
          fi;
          unit++
        :: else -> break
        od;
        unit = 0;
        if :: logged == 0 -> logged = count :: else -> owner[given[count]] = HOST fi
      };
      give();
      count = 0
    :: /* What finds no room is not delivered. */
      d_step { finished[0] && ROOM == 0 -> checkRecord(); finished[0] = false; owner[0] = HOST }
    :: d_step { finished[1] && ROOM == 0 -> checkRecord(); finished[1] = false; owner[1] = HOST }
#else
    :: /* The driver's completeTransmit: what finds no room waits here. */
      d_step {
        ANY(finished) || ANY(waits) && ROOM > 0 ->
        checkRecord();
        do
        :: unit < UNITS ->
          if :: finished[unit] -> finished[unit] = false; waits[unit] = true :: else fi;
          if :: waits[unit] && count < BURST && count < ROOM -> waits[unit] = false; given[count] = unit; count++ :: else fi;
          unit++
        :: else -> break
        od;
        unit = 0;
        logged = count
      };
      if
      :: count > 0 -> give()
      :: else
      fi;
      count = 0
#endif
    od
  } unless { KILLED(self) };
  ended++
}

/* A device that has a buffer may use it at any time, until it says that it is done or is reset. */
inline use(u) {
  d_step {
    posted[u] && busMaster && !deviceFailed ->
    assert(!isFreed);
#ifdef RECEIVE
    assert(WITH_INSTANCE(u) == 0)
#else
    /* Until the instance is told, the bytes are those that it sent. */
    assert(!holds[u] && IN(toInstance, u) == 0)
#endif
  }
}
inline finish(u) { d_step { posted[u] && busMaster && !deviceFailed -> posted[u] = false; finished[u] = true } }

active proctype Device() {
  do
  :: use(0)
  :: use(1)
  :: finish(0)
  :: finish(1)
#if UNITS > 2
  :: use(2)
  :: finish(2)
#endif
  :: isFreed -> break
  od
}

/* A correct instance: it uses what is its own, in any order and at any time, or does nothing. */
inline putBack(u) {
  d_step {
    holds[u] && FILLED(toHost) < SLOTS ->
    holds[u] = false;
    toHost.slot[toHost.produced % SLOTS] = u;
    toHost.produced = UP(toHost.produced, 1)
  }
}

active proctype Instance() {
  byte unit;
  {
    do
    :: d_step {
        FILLED(toInstance) > 0 ->
        unit = toInstance.slot[toInstance.consumed % SLOTS];
        assert(!holds[unit]); /* nothing comes twice */
        holds[unit] = true;
        toInstance.slot[toInstance.consumed % SLOTS] = 0;
        toInstance.consumed = UP(toInstance.consumed, 1);
        unit = 0
      }
    :: putBack(0)
    :: putBack(1)
#if UNITS > 2
    :: putBack(2)
#endif
    od
  } unless { instanceDead || isFreed }
}

/* What goes wrong, at any time. */
active proctype Fault() {
end:
  do
  :: d_step { faults < FAULTS && !instanceDead && !supervisorDead && generation == started -> generation++; faults++ } /* kill -9, or a trap */
  :: d_step { faults < FAULTS && !instanceDead && !supervisorDead && !deviceFailed && generation == started -> deviceFailed = true; faults++ }
  :: d_step { !instanceDead && !supervisorDead -> instanceDead = true }
  :: d_step { !instanceDead && !supervisorDead -> supervisorDead = true }
  :: isFreed -> break
  od
}

/* VFIO_DEVICE_RESET, or another connection: no buffer is the device's, and what it has said is forgotten with its rings. */
inline reset() {
  d_step {
    do
    :: position < UNITS -> posted[position] = false; finished[position] = false; position++
    :: else -> break
    od;
    position = 0;
    deviceFailed = false
  }
}

#define END_IF_DEAD if :: instanceDead || supervisorDead -> goto over :: else fi

/* Supervisor: hosts one after the other, each only when the one before is dead and the device is quiet. */
active proctype Supervisor() {
  byte position;
#ifdef TRANSMIT
  d_step {
    do
    :: position < UNITS -> owner[position] = INSTANCE; holds[position] = true; position++
    :: else -> break
    od;
    position = 0
  };
#endif
  atomic { generation = 1; started = 1; run Host(1) };
  do
  :: instanceDead || supervisorDead -> break
  :: d_step { deviceFailed && generation == started -> generation++ } /* the device's error: the host, which may hang, is killed */
  :: generation > started ->
#ifndef KILL_LEFT_OUT
    ended == started; /* pidfd: it is dead, and stores no more */
#endif
    END_IF_DEAD;
#ifdef RESET_LEFT_OUT
    d_step { finished[0] = false; finished[1] = false; deviceFailed = false };
#else
    busMaster = false; /* bus mastering off, read back */
    END_IF_DEAD;
    reset();
    END_IF_DEAD;
    busMaster = true;
#endif
    END_IF_DEAD;
    atomic { started = generation; run Host(generation) }
  od;
over:
  /* An instance that has the NIC to itself has died: the run ends. Where the supervisor has died the kernel does the same:
     its children are killed, the last close of the device resets it, and the container, which pins the memory, goes last. */
  generation = started + LAST;
  ended == started;
#ifndef FREE_BEFORE_RESET
  busMaster = false;
  reset();
#endif
  isFreed = true
}
