import CLinux
import Glibc

/// Descriptors that are kept so that another driver host can be started while the supervisor may open no more: instances that
/// attach can take all that there are. One thread.
struct DescriptorReserve: ~Copyable {
  private var descriptors: [Int32] = []

  /// As many as a device's new connection and a new process need: a socket, a pair of control sockets, a program, a pair of
  /// sockets to hold the process at, its pidfd, and two files of its identifiers, one after the other.
  private static let count = 8

  init() { fill() }

  deinit { for descriptor in descriptors { close(descriptor) } }

  /// As many as can be had.
  mutating func fill() {
    while descriptors.count < Self.count {
      let descriptor = linux_fcntl(2, F_DUPFD_CLOEXEC, 3)
      if descriptor < 0 { return }
      descriptors.append(descriptor)
    }
  }

  mutating func release() {
    for descriptor in descriptors { close(descriptor) }
    descriptors = []
  }
}
