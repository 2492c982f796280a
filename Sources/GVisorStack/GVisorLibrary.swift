import CGVisor
import Glibc
import Stacks

/// gVisor's TCP/IP as the shared library that `make gvisor` puts beside the programs. It is loaded only by an instance
/// that wants it: Go's run time comes with it, with threads and a heap of its own.
struct GVisorLibrary {
  private let functions: gvisor_functions

  /// Loads the library, once in a process.
  init() throws(StackError) {
    let path = Self.folder + "/libmartlet-gvisor.so"
    guard access(path, F_OK) == 0 else {
      throw StackError("gvisor needs `make gvisor`: there is no \(path)")
    }
    var functions = gvisor_functions()
    if let reason = gvisor_load(path, &functions) {
      throw StackError("\(path) cannot be loaded: \(String(cString: reason))")
    }
    self.functions = functions
  }

  /// Starts the stack, once in a process.
  /// - Parameter shared: for as long as the process lives.
  func start(
    _ configuration: gvisor_configuration, shared: UnsafeMutablePointer<gvisor_shared>
  ) throws(StackError) {
    var configuration = configuration
    let room = 256
    let reason = UnsafeMutablePointer<CChar>.allocate(capacity: room)
    defer { reason.deallocate() }
    if functions.start(&configuration, shared, reason, UInt32(room)) != 0 {
      throw StackError("gvisor does not start: \(String(cString: reason))")
    }
  }

  /// Whole packets; each is copied before this returns.
  func receive(_ pieces: UnsafeMutablePointer<gvisor_piece>, count: Int) {
    functions.receive(pieces, UInt32(count))
  }

  /// Copies packets that wait into the rooms and says each one's length.
  /// - Returns: how many there were.
  func send(into rooms: UnsafeMutablePointer<gvisor_piece>, count: Int) -> Int {
    Int(functions.send(rooms, UInt32(count)))
  }

  /// Where this program is.
  private static var folder: String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let length = readlink("/proc/self/exe", &buffer, buffer.count)
    let path = String(
      decoding: buffer[..<max(0, length)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
  }
}
