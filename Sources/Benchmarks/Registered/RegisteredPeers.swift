import CLinux
import Glibc
import Handles
import Memory
import Stacks
import Supervisor

/// Who has to do with registered memory beside the instance: `martlet bench-end memory-owner`, `memory-reader` and
/// `pattern-receiver`.
public enum RegisteredPeers {
  /// Makes a handle over memory of its own for one process, and stays until it is killed.
  public static func own(socket: String, receiver: Int32) throws {
    var broker = try HandleClient(path: socket + ".handles")
    let memory = try Arena(byteCount: 4 << 20, pageSize: .ordinary, name: "application")
    let handle = try broker.create(
      over: memory, rights: .readWrite, receiver: .process(receiver, user: getuid()))
    print(handle.id.text)
    fflush(nil)
    // The handle goes with its owner's connection.
    withExtendedLifetime(broker) {
      withExtendedLifetime(memory) { while true { Glibc.pause() } }
    }
  }

  /// Reads another user's memory by the broker, and tries to write it.
  public static func read(socket: String, handle: String, byteCount: Int) throws {
    guard let id = HandleID(handle) else { throw SupervisorError.input("no handle") }
    var broker = try HandleClient(path: socket + ".handles")
    var isRight = true
    for offset in stride(from: 0, to: byteCount, by: byteCount / 64) {
      let bytes = try broker.read(id, offset: offset, byteCount: 4096)
      let difference = bytes.withUnsafeBytes {
        PatternContent.firstDifference($0, offset: UInt64(offset))
      }
      if difference != nil { isRight = false }
    }
    print("captured \(isRight)")
    do throws(HandleError) {
      try broker.write(id, offset: 0, [1])
      print("written")
    } catch {
      print("write: \(error)")
    }
  }

  /// Receives so many bytes at UDP port 9 and compares them with the pattern, in order.
  public static func receive(byteCount: Int) throws {
    let socket = Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
    var size: Int32 = 64 << 20
    setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &size, 4)
    var limit = timeval(tv_sec: 20, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(9).bigEndian
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard bound == 0 else { throw SupervisorError.system("bind", errno) }
    print("ready")
    fflush(nil)
    var buffer = [UInt8](repeating: 0, count: 2048)
    var received = 0
    while received < byteCount {
      let count = recv(socket, &buffer, buffer.count, 0)
      guard count > 0 else { throw SupervisorError.input("only \(received) bytes have come") }
      let difference = buffer.withUnsafeBytes {
        PatternContent.firstDifference(
          UnsafeRawBufferPointer(rebasing: $0[..<count]), offset: UInt64(received))
      }
      if let difference { throw SupervisorError.input("byte \(received + difference) is wrong") }
      received += count
    }
    print("received \(received) bytes, all right")
    close(socket)
  }
}
