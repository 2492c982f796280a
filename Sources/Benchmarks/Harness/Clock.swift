import CLinux
import Glibc

/// Wall time and what of it this thread had a core.
struct Stopwatch {
  private let wall = monotonic_nanoseconds()
  private let cpu = clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID)

  var elapsed: UInt64 { monotonic_nanoseconds() - wall }
  var cpuShare: Double {
    Double(clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID) - cpu) / Double(max(1, elapsed))
  }
}

/// Keeps this thread on one core; where there are fewer, on the last one.
func pinThread(toCore core: Int) {
  let cores = sysconf(Int32(_SC_NPROCESSORS_ONLN))
  var mask: UInt64 = 1 << UInt64(min(core, max(0, cores - 1), 63))
  _ = linux_set_affinity(&mask, 8)
}

/// Lets this thread run anywhere.
func unpinThread() {
  var mask = UInt64.max
  _ = linux_set_affinity(&mask, 8)
}

func pause(milliseconds: Int) { usleep(UInt32(milliseconds) * 1000) }
