/* Memory that is given to an instance and taken back while the device reads it: Supervisor/Sharing/SharingServer+Memory.swift
 * (grow, shrink) and +Detach.swift, Host/Shared (InstanceControl, InstanceTable), with the death of the instance and of the
 * driver host at any step. One extent; the instance keeps the rules, or not.
 *
 * Properties:
 * - the device reads only what is mapped for it and has not been freed: no IOMMU fault, nobody else's memory;
 * - the host touches nothing that has been freed;
 * - it refuses nothing that the supervisor has given and not asked back;
 * - nobody waits for ever for an answer: the supervisor gets to the end of each change, and of the instance.
 *
 * A variant that must fail is named by a word: see model.sh.
 */
#ifndef MOVES
#define MOVES 2 /* times that the extent is given */
#endif
#ifndef DEATHS
#define DEATHS 2 /* of the driver host */
#endif
#define PACKETS 2

mtype = { EXTENT, EXTENDED, SHRINK, SHRUNK, DETACH, DETACHED, CLOSED };
mtype = { IDLE, EXTENDING, ASKING, WITHDRAWING, LEAVING, GONE };

chan toHost = [3] of { mtype };
chan toSupervisor = [4] of { mtype };

/* The truth. */
bool mapped, freed = true;
byte waiting, reading; /* packets in the transmit ring, and with the device */
/* What the instance knows. */
bool has, asked, letGo, isHostile, mayDie, instanceDead;
/* Hosts. */
byte deaths;
bool hostDead, hostRuns = true;
bool isOver;

proctype Device() {
  do
  :: d_step { reading > 0 -> assert(mapped && !freed) }
  :: d_step { reading > 0 -> reading-- } /* read, and completed by the host */
  :: isOver -> break
  od
}

/* With as many packets as it has memory for. */
proctype Instance() {
  do
  :: d_step { (has || isHostile) && !letGo && waiting + reading < PACKETS -> waiting++ }
  :: d_step { asked && (waiting + reading == 0 || isHostile) -> asked = false; has = false; letGo = true }
  :: d_step { isHostile && letGo && waiting + reading < PACKETS -> waiting++ } /* it has said that it has let go */
  :: d_step { mayDie && !isOver -> instanceDead = true } -> break
  :: isOver -> break
  od
}

/* What a host does with the supervisor's messages, and with the transmit ring. */
proctype Host(bool isAttached; bool knows) {
  bool shrinking, detaching;
  {
    do
    :: toHost ? EXTENT -> knows = true; toSupervisor ! EXTENDED
    :: toHost ? SHRINK -> knows = false; shrinking = true /* by the queue's thread: no packet of it is taken from now on */
    :: toHost ? DETACH -> isAttached = false; detaching = true
#ifdef ANSWER_BEFORE_SETTLED
    :: shrinking -> shrinking = false; toSupervisor ! SHRUNK
#else
    :: shrinking && reading == 0 -> shrinking = false; toSupervisor ! SHRUNK /* InstancePort.isSettled */
#endif
#ifdef LET_GO_BEFORE_LANDED
    :: detaching -> detaching = false; toSupervisor ! DETACHED
#else
    :: detaching && reading == 0 -> detaching = false; toSupervisor ! DETACHED /* InstanceTable.release */
#endif
    :: isAttached && waiting > 0 ->
      if
      :: d_step { knows && waiting > 0 -> assert(!freed); waiting--; reading++ } /* its first bytes are copied, then it is the device's */
      :: !knows -> assert(isHostile); isAttached = false; toSupervisor ! CLOSED
      fi
    :: isOver -> break
    od
  } unless { hostDead };
  hostRuns = false
}

inline free() { mapped = false; freed = true }

inline dropMessages() {
  d_step {
    do
    :: len(toHost) > 0 -> toHost ? _
    :: len(toSupervisor) > 0 -> toSupervisor ? _
    :: else -> break
    od
  }
}

active proctype Supervisor() {
  mtype stage = IDLE;
  byte moves;
  if :: isHostile = true :: skip fi;
  if :: mayDie = true :: skip fi;
  atomic { run Device(); run Instance(); run Host(true, false) };
  do
  :: atomic { stage == IDLE && freed && !instanceDead && moves < MOVES -> moves++; freed = false };
    mapped = true;
#ifdef INSTANCE_TOLD_FIRST
    has = true;
#endif
    toHost ! EXTENT; stage = EXTENDING
  :: stage == IDLE && !freed -> asked = true; stage = ASKING
  :: stage == ASKING && letGo ->
    letGo = false;
#ifdef FREED_BEFORE_SHRUNK
    toHost ! SHRINK; free(); stage = IDLE
#else
    toHost ! SHRINK; stage = WITHDRAWING
#endif
  :: stage == ASKING && isHostile -> stage = LEAVING; toHost ! DETACH /* it has not answered in time */
  :: instanceDead && stage != LEAVING && stage != GONE -> stage = LEAVING; toHost ! DETACH
  :: toSupervisor ? EXTENDED -> if :: stage == EXTENDING -> has = true; stage = IDLE :: else fi
  :: toSupervisor ? SHRUNK -> if :: stage == WITHDRAWING -> free(); stage = IDLE :: else fi
  :: toSupervisor ? CLOSED -> if :: stage != LEAVING && stage != GONE -> stage = LEAVING; toHost ! DETACH :: else fi
  :: toSupervisor ? DETACHED -> if :: stage == LEAVING -> free(); stage = GONE :: else fi
  :: atomic { deaths < DEATHS && stage != GONE -> deaths++; hostDead = true }; /* kill -9; what it has said may have been heard or not */
#ifndef RESET_LEFT_OUT
    d_step { reading = 0 }; /* the device is reset; outstanding packets are completed by the next host */
#endif
    dropMessages();
    !hostRuns;
    d_step { hostDead = false; hostRuns = true };
    /* The next host is told of what there is, and of nothing that is on its way out. */
    if
    :: stage == WITHDRAWING ->
#ifdef WITHDRAWN_TOLD_AGAIN
      atomic { run Host(true, true) };
      free(); stage = IDLE
#else
      free(); stage = IDLE; run Host(true, false)
#endif
    :: stage == LEAVING -> free(); stage = GONE; run Host(false, false)
    :: stage == EXTENDING -> run Host(true, false);
#ifndef EXTENT_NOT_TOLD_AGAIN
      toHost ! EXTENT
#endif
    :: else ->
#ifdef KNOWLEDGE_LOST
      run Host(true, false)
#else
      run Host(true, !freed)
#endif
    fi
  :: stage == GONE || stage == IDLE && freed && moves == MOVES -> break
  od;
  isOver = true
}
