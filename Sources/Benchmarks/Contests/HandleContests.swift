import CLinux
import Channel
import Glibc
import Handles
import Memory
import Supervisor

/// Another process's page, opened by a handle, beside its descriptor passed by the owner itself.
struct HandleContests {
  let plan: BenchmarkPlan

  func run(_ take: ([BenchmarkRow]) -> Void) throws {
    guard plan.wants("handles.open") else { return }
    let owner = try HandleOwner()
    let contest = Contest(
      [.init("handles.open", "ns", isRate: false)],
      ours: { try owner.sample(plan.window) { () throws in try owner.openByHandle() } },
      peer: (
        "SCM_RIGHTS, no broker",
        { try owner.sample(plan.window) { () throws in try owner.openByDescriptor() } }
      ))
    take(try contest.measure(rounds: plan.rounds))
  }
}

/// Why a page could not be opened.
struct HandleContestError: Error, CustomStringConvertible {
  let description: String
}

/// This process's side: it asks, maps, reads the page's first byte, and lets go.
private final class HandleOwner {
  private var client: HandleClient
  private let direct: Int32
  private let id: HandleID
  private let memory: PublishedMemory
  private let other: LineProcess

  init() throws {
    let broker = try Self.pair()
    let plain = try Self.pair()
    memory = try PublishedMemory(byteCount: 4096, name: "bench")
    memory.address.storeBytes(of: 42, as: UInt8.self)
    let reader = dup(memory.readerDescriptor)
    defer {
      close(broker.theirs)
      close(plain.theirs)
      close(reader)
    }
    other = try LineProcess(
      name: "the broker", program: Programs.martlet, arguments: ["bench-end", "handles"],
      descriptors: [broker.theirs, plain.theirs, reader])
    _ = try other.line { $0 == "ready" }
    client = try HandleClient(adopting: broker.ours)
    direct = plain.ours
    id = try client.create(over: memory, receiver: .user(getuid())).id
  }

  deinit { close(direct) }

  func openByHandle() throws {
    let range = try client.open(id)
    guard range.bytes.unsafeLoad(as: UInt8.self) == 42 else {
      throw HandleContestError(description: "the page is another one")
    }
  }

  func openByDescriptor() throws {
    var (byte, descriptor, count): (UInt8, Int32, Int32) = (0, -1, 0)
    send(direct, &byte, 1, 0)
    guard linux_receive_descriptors(direct, &byte, 1, &descriptor, 1, &count, 0) == 1,
      let mapped = linux_mmap(nil, 4096, PROT_READ, MAP_SHARED, descriptor, 0)
    else { throw HandleContestError(description: "the descriptor does not come") }
    close(descriptor)
    defer { munmap(mapped, 4096) }
    guard mapped.load(as: UInt8.self) == 42 else {
      throw HandleContestError(description: "the page is another one")
    }
  }

  /// Both ends wait for each other, so this thread's share of a core says nothing.
  func sample(_ milliseconds: Int, _ body: () throws -> Void) throws -> Sample {
    for _ in 0..<100 { try body() }
    let start = monotonic_nanoseconds()
    var (rounds, elapsed): (UInt64, UInt64) = (0, 0)
    while elapsed < UInt64(milliseconds) * 1_000_000 {
      for _ in 0..<100 { try body() }
      rounds += 100
      elapsed = monotonic_nanoseconds() - start
    }
    return Sample([Double(elapsed) / Double(rounds)], cpuShare: 1)
  }

  private static func pair() throws -> (ours: Int32, theirs: Int32) {
    var ends: [Int32] = [-1, -1]
    let type = Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, type, 0, &ends) == 0 else {
      throw HandleContestError(description: "socketpair: \(String(cString: strerror(errno)))")
    }
    return (ends[0], ends[1])
  }
}

/// `martlet bench-end handles`: descriptor 3 is a client of the broker, 4 a socket on which each byte is answered with
/// descriptor 5.
public enum HandleOwnerSide {
  public static func run() throws {
    let service = try HandleService()
    try service.accept(3)
    print("ready")
    fflush(nil)
    var entries = [service.descriptor, 4, 0].map {
      pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
    }
    while entries[2].revents == 0 {
      poll(&entries, 3, -1)
      if entries[0].revents != 0 { service.serve(now: monotonic_nanoseconds()) }
      if entries[1].revents != 0 {
        var byte: UInt8 = 0
        guard recv(4, &byte, 1, 0) == 1 else { return }
        var descriptor: Int32 = 5
        _ = linux_send_descriptors(4, &byte, 1, &descriptor, 1, 0)
      }
    }
  }
}
