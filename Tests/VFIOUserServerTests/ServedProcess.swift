import CLinux
import Glibc
import Testing
import VFIOUserMessages

/// `martlet serve` as a process of its own, as its clients meet it: what is hostile to it must not be hostile to the
/// tests, and its descriptors can be counted.
final class ServedProcess {
  let path: String
  private let process: pid_t
  private let output: Int32
  private var hasEnded = false

  init(_ arguments: [String] = ["--wire", "none"], path: String? = nil) throws {
    let path =
      path ?? "/tmp/martlet-test-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
    self.path = path
    var pipes: [Int32] = [-1, -1]
    guard pipe(&pipes) == 0 else { throw MessageError.system(call: "pipe", errno: errno) }
    // Processes of other tests must not hold its ends open.
    for descriptor in pipes { _ = linux_fcntl(descriptor, F_SETFD, Int(FD_CLOEXEC)) }
    defer { close(pipes[1]) }
    process = try Self.spawn(
      ["serve", "virtio-net", "--socket", path, "--json"] + arguments, output: pipes[1], errors: 2,
      closing: pipes)
    output = pipes[0]
    // The first line says that clients can connect.
    var byte: UInt8 = 0
    while read(output, &byte, 1) == 1 && byte != 0x0a {}
  }

  /// Starts the `martlet` that was built beside these tests.
  static func spawn(
    _ arguments: [String], output: Int32, errors: Int32, closing: [Int32]
  ) throws -> pid_t {
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &buffer, 4095)
    let runner = String(
      decoding: buffer[0..<max(0, count)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let folder = runner[..<(runner.lastIndex(of: "/") ?? runner.startIndex)]
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    if output != 1 { posix_spawn_file_actions_adddup2(&actions, output, 1) }
    if errors != 2 { posix_spawn_file_actions_adddup2(&actions, errors, 2) }
    for descriptor in closing { posix_spawn_file_actions_addclose(&actions, descriptor) }
    defer { posix_spawn_file_actions_destroy(&actions) }
    var values: [UnsafeMutablePointer<CChar>?] = (["martlet"] + arguments).map { strdup($0) }
    values.append(nil)
    defer { for value in values { free(value) } }
    var identifier: pid_t = 0
    let result = posix_spawn(&identifier, "\(folder)/martlet", &actions, nil, values, environ)
    guard result == 0 else { throw MessageError.system(call: "posix_spawn", errno: result) }
    return identifier
  }

  deinit { if !hasEnded { end() } }

  var isAlive: Bool { Glibc.kill(process, 0) == 0 && waitpid(process, nil, WNOHANG) == 0 }

  /// Open descriptors of the process.
  var descriptorCount: Int {
    guard let folder = opendir("/proc/\(process)/fd") else { return -1 }
    defer { closedir(folder) }
    var count = 0
    while let entry = readdir(folder) {
      if entry.pointee.d_name.0 != CChar(bitPattern: UInt8(ascii: ".")) { count += 1 }
    }
    return count
  }

  /// The number that the process's next descriptor would get.
  private var nextDescriptor: Int {
    var target: CChar = 0
    return (0...).first { readlink("/proc/\(process)/fd/\($0)", &target, 1) < 0 }!
  }

  /// Lets the process open nothing more, or as much as it may.
  func limitDescriptors(_ isOn: Bool) {
    #expect(linux_limit_descriptors(process, isOn ? UInt64(nextDescriptor) : .max) == 0)
  }

  /// Mappings of the process.
  var mappingCount: Int {
    guard let file = fopen("/proc/\(process)/maps", "r") else { return -1 }
    defer { fclose(file) }
    var lines = 0
    while case let character = fgetc(file), character != EOF {
      if character == 0x0a { lines += 1 }
    }
    return lines
  }

  /// Ends the process as nobody should.
  func kill() {
    hasEnded = true
    _ = Glibc.kill(process, SIGKILL)
    waitpid(process, nil, 0)
    close(output)
  }

  /// Ends the process as an operator would.
  /// - Returns: what it printed, and its exit code.
  @discardableResult
  func end() -> (report: String, code: Int32) {
    hasEnded = true
    _ = Glibc.kill(process, SIGTERM)
    var text: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while case let count = read(output, &chunk, chunk.count), count > 0 { text += chunk[0..<count] }
    close(output)
    var status: Int32 = 0
    waitpid(process, &status, 0)
    return (String(decoding: text, as: UTF8.self), status & 0x7f == 0 ? status >> 8 & 0xff : -1)
  }

  func connect() throws -> RawClient { try RawClient(path) }
}

/// The client's end of a socket, byte by byte: it can say anything.
final class RawClient {
  let stream: MessageStream
  private var identifier: UInt16 = 0

  init(_ path: String) throws {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    let result = linux_connect_unix(descriptor, path)
    guard result == 0 else {
      close(descriptor)
      throw MessageError.system(call: "connect", errno: -result)
    }
    stream = MessageStream(descriptor: descriptor)
  }

  var deadline: UInt64 { monotonic_nanoseconds() + 30_000_000_000 }

  func send(_ bytes: [UInt8], descriptors: [Int32] = []) {
    _ = bytes.withUnsafeBytes {
      linux_send_descriptors(
        stream.descriptor, $0.baseAddress!, $0.count, descriptors, Int32(descriptors.count), 0)
    }
  }

  /// A command's bytes, header included; `size` where the header has to lie.
  func bytes(_ command: UInt16, _ payload: [UInt8] = [], size: UInt32? = nil, flags: UInt32 = 0)
    -> [UInt8]
  {
    identifier &+= 1
    var writer = ByteWriter()
    MessageHeader(
      identifier: identifier, command: command, size: size ?? UInt32(16 + payload.count),
      flags: .init(rawValue: flags)
    ).write(to: &writer)
    writer.write(payload)
    return writer.bytes
  }

  /// - Returns: the errno of the reply, and its payload.
  func ask(_ command: VFIOUserCommand, _ payload: [UInt8] = [], descriptors: [Int32] = []) throws
    -> (errno: Int32, payload: [UInt8])
  {
    send(bytes(command.rawValue, payload), descriptors: descriptors)
    return try reply()
  }

  func reply() throws -> (errno: Int32, payload: [UInt8]) {
    let message = try stream.receive(deadline: deadline)
    return (Int32(message.header.errno), message.payload)
  }

  func negotiate() throws {
    let proposal = VersionMessage(major: 0, minor: 1, capabilities: .init(maximumDescriptors: 8))
    let answer = try ask(.version, proposal.bytes)
    if answer.errno != 0 { throw MessageError.refused(command: 1, errno: UInt32(answer.errno)) }
  }

  /// Whether the server closes the connection, replies aside.
  var isClosedByServer: Bool {
    let end = deadline
    while true {
      do { _ = try stream.receive(deadline: end) } catch { return error == .closed }
    }
  }
}

/// A file in memory; closed with this.
final class MemoryFile {
  let descriptor: Int32
  init(byteCount: Int, seal: Bool = false) {
    descriptor = linux_memfd_create("test", LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING)
    ftruncate(descriptor, byteCount)
    if seal { _ = linux_fcntl(descriptor, LINUX_F_ADD_SEALS, Int(LINUX_F_SEAL_SHRINK)) }
  }
  deinit { close(descriptor) }
}
