import CLinux
import Glibc
import Synchronization

/// Closes descriptors that peers have sent and that are no memory, each in a thread of its own: a file system in user space
/// can make close(2) wait for ever (FUSE_FLUSH), and must not hold the broker. Any thread.
final class DescriptorCloser: Sendable {
  /// Of a user who has as many waiting, no more is taken.
  static let maximumPerUser = 8

  private let waiting = Mutex<[UInt32: Int]>([:])

  /// Whether a user's descriptors have been closed, but for a few.
  func hasRoom(_ uid: UInt32) -> Bool {
    waiting.withLock { $0[uid, default: 0] < Self.maximumPerUser }
  }

  func close(_ descriptor: Int32, of uid: UInt32) {
    // Asked without the file system. Memory and sockets are closed without waiting.
    var (type, length): (Int32, socklen_t) = (0, 4)
    if linux_fcntl(descriptor, LINUX_F_GET_SEALS, 0) >= 0
      || getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &length) == 0
    {
      Glibc.close(descriptor)
      return
    }
    waiting.withLock { $0[uid, default: 0] += 1 }
    let work = Work(closer: self, descriptor: descriptor, uid: uid)
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setstacksize(&attributes, 128 << 10)
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    var thread = pthread_t()
    let argument = Unmanaged.passRetained(work)
    let result = pthread_create(
      &thread, &attributes,
      { argument in
        if let argument { Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().run() }
        return nil
      }, argument.toOpaque())
    // Without a thread the descriptor stays open, and counts.
    if result != 0 { argument.release() }
    pthread_attr_destroy(&attributes)
  }

  private final class Work: Sendable {
    let closer: DescriptorCloser
    let descriptor: Int32
    let uid: UInt32

    init(closer: DescriptorCloser, descriptor: Int32, uid: UInt32) {
      self.closer = closer
      self.descriptor = descriptor
      self.uid = uid
    }

    func run() {
      Glibc.close(descriptor)
      closer.waiting.withLock { waiting in
        let left = waiting[uid, default: 1] - 1
        waiting[uid] = left == 0 ? nil : left
      }
    }
  }
}

/// Descriptors that came with a message: those that nobody takes are closed.
struct ReceivedDescriptors: ~Copyable {
  private var descriptors: [Int32]
  private let closer: DescriptorCloser
  private let uid: UInt32

  init(_ descriptors: [Int32], of uid: UInt32, closer: DescriptorCloser) {
    self.descriptors = descriptors
    self.uid = uid
    self.closer = closer
  }

  deinit {
    for descriptor in descriptors where descriptor >= 0 { closer.close(descriptor, of: uid) }
  }

  var count: Int { descriptors.count }

  /// Stays this value's.
  subscript(index: Int) -> Int32 { descriptors[index] }

  /// The caller's from now on.
  mutating func take(_ index: Int) -> Int32 {
    defer { descriptors[index] = -1 }
    return descriptors[index]
  }
}
