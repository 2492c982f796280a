// What a hostile driver tries from inside its driver host. Each attempt is harmless where it succeeds.
#pragma once

/// The name of attempt `index`; NULL behind the last one.
const char *_Nullable escape_attempt_name(int index);
/// How a confined host must take it: "killed CALL", CALL as the supervisor names it, or what the kernel answers.
const char *_Nonnull escape_attempt_expectation(int index);
/// Makes the attempt, on the descriptors that a driver host has: 3 its supervisor, 4 its device, 6 its arena.
/// Returns -errno where it is refused.
long escape_attempt(int index);
/// Makes each attempt in a child of its own, unconfined, and prints "NAME OUTCOME", a line each. Returns an exit code.
int escape_control(void);
