import CLinux
import Glibc
import Synchronization

/// Closes descriptors that peers have sent and that are no memory, each in a thread of its own: a file system in user space
/// can make close(2) wait for ever (FUSE_FLUSH), a socket as long as its owner has said (SO_LINGER), and whoever serves many
/// must not be held. Any thread.
public final class DescriptorCloser: Sendable {
  public init() {}

  /// Of a user who has as many waiting, no more is taken.
  static let maximumPerUser = 8

  private let waiting = Mutex<[UInt32: Int]>([:])

  /// Whether a user's descriptors have been closed, but for a few.
  public func hasRoom(_ uid: UInt32) -> Bool {
    waiting.withLock { $0[uid, default: 0] < Self.maximumPerUser }
  }

  public func close(_ descriptor: Int32, of uid: UInt32) {
    // Asked without the file system. Memory is closed without waiting.
    if linux_fcntl(descriptor, LINUX_F_GET_SEALS, 0) >= 0 {
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
