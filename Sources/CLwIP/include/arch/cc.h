// What lwIP wants to know of the compiler and the system.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#define LWIP_RAND() ((uint32_t)random())
// A failed assertion ends this process, which nothing else depends on.
#define LWIP_PLATFORM_ASSERT(x) do { fprintf(stderr, "lwIP: %s (%s:%d)\n", x, __FILE__, __LINE__); abort(); } while (0)
#define LWIP_PLATFORM_DIAG(x)
