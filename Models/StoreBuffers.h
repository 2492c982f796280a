/* Memory of x86: each processor has a buffer of stores that other processors do not see yet (Sewell and others, "x86-TSO",
 * 2010). A fence waits until it is empty, and so does a system call that takes a lock. To be included after WORDS, the words
 * of shared memory, and STORES, more than an end has between two fences, were defined. `self` is 0 or 1. */
byte memory[WORDS];
typedef Buffer { byte word[STORES]; byte value[STORES]; byte count };
Buffer buffer[2];

#define FENCE (buffer[self].count == 0)

inline store(w, v) {
  d_step {
    assert(buffer[self].count < STORES);
    buffer[self].word[buffer[self].count] = w;
    buffer[self].value[buffer[self].count] = v;
    buffer[self].count++
  }
}

/* What this processor sees: its own last store to the word, or memory. */
inline load(w, target) {
  d_step {
    target = memory[w];
    i = 0;
    do
    :: i < buffer[self].count -> if :: buffer[self].word[i] == w -> target = buffer[self].value[i] :: else fi; i++
    :: else -> i = 0; break
    od
  }
}

/* Stores get to memory in their order, at any time. */
proctype Drain(byte self) {
  byte i;
end:
  do
  :: d_step {
      buffer[self].count > 0 ->
      memory[buffer[self].word[0]] = buffer[self].value[0];
      i = 1;
      do
      :: i < buffer[self].count ->
        buffer[self].word[i - 1] = buffer[self].word[i];
        buffer[self].value[i - 1] = buffer[self].value[i];
        i++
      :: else -> i = 0; break
      od;
      buffer[self].count--;
      buffer[self].word[buffer[self].count] = 0;
      buffer[self].value[buffer[self].count] = 0
    }
  od
}
