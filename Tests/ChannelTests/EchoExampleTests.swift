import CLinux
import Channel
import Foundation
import Memory
import PlayedSupervisor
import Testing

/// Examples/icmp-echo.c, compiled as its users would, against a host end over real shared memory.
@Suite struct EchoExampleTests {
  static let root = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().path

  /// Compiles the example into a folder of its own.
  /// - Returns: the program's path, and what the compiler said.
  static func compile(_ compiler: [String], into folder: String) throws -> (String, String) {
    let program = folder + "/icmp-echo"
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments =
      compiler + [
        "-O2", "-Wall", "-Wextra", "-Werror", "-I", root + "/Sources/CMartletChannel/include",
        root + "/Examples/icmp-echo.c", "-o", program,
      ]
    let said = Pipe()
    process.standardError = said
    try process.run()
    let text = said.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (program, String(decoding: text, as: UTF8.self))
  }

  static func folder() throws -> String {
    var name = Array("/tmp/martlet-echo-XXXXXX".utf8CString)
    guard mkdtemp(&name) != nil else { throw CocoaError(.fileWriteUnknown) }
    return String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  @Test(arguments: [["gcc", "-std=c11"], ["g++", "-x", "c++", "-std=c++11"]])
  func itCompilesWithoutAWarning(_ compiler: [String]) throws {
    let folder = try Self.folder()
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let (program, said) = try Self.compile(compiler, into: folder)
    #expect(said == "")
    #expect(access(program, X_OK) == 0)
  }

  /// The example as a process on a played supervisor.
  final class Running {
    let supervisor: PlayedSupervisor
    let process = Process()
    let folder: String
    let output = Pipe()

    init(queues: Int) throws {
      folder = try EchoExampleTests.folder()
      supervisor = try PlayedSupervisor(queues: queues)
      let (program, said) = try EchoExampleTests.compile(["gcc", "-std=c11"], into: folder)
      #expect(said == "")
      // The supervisor's socket becomes the program's standard input: one that it inherits.
      process.executableURL = URL(filePath: program)
      process.arguments = ["10.0.0.3"]
      process.environment = ["MARTLET_SOCKET": "0"]
      process.standardInput = FileHandle(fileDescriptor: supervisor.instanceSocket)
      process.standardOutput = output
      process.standardError = output
      try process.run()
      close(supervisor.instanceSocket)
      supervisor.sendWelcome()
      #expect(supervisor.hear() == "ready")
    }

    /// Waits for its end, thirty seconds at most, and returns what it said.
    func end() -> String {
      let began = Date()
      while process.isRunning, began.timeIntervalSinceNow > -30 { usleep(1000) }
      if process.isRunning { process.terminate() }
      return String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    }

    deinit {
      if process.isRunning { kill(process.processIdentifier, SIGKILL) }
      process.waitUntilExit()
      try? FileManager.default.removeItem(atPath: folder)
    }
  }

  /// Waits, thirty seconds at most, until a ring has something.
  static func take(_ ring: inout RingConsumer, into burst: inout Burst) throws -> Int {
    let began = Date()
    while burst.isEmpty, began.timeIntervalSinceNow > -30 {
      try ring.pop(into: &burst)
      if burst.isEmpty { usleep(200) }
    }
    return burst.count
  }

  static let asker: [UInt8] = [2, 0, 0, 0, 0, 9]
  static let nic: [UInt8] = [2, 0, 0, 0, 0, 1]

  static func arpRequest(for last: UInt8) -> [UInt8] {
    [UInt8](repeating: 255, count: 6) + asker + [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]
      + asker + [10, 0, 0, 1] + [0, 0, 0, 0, 0, 0, 10, 0, 0, last]
  }

  static func sum(_ bytes: ArraySlice<UInt8>) -> UInt16 {
    var sum: UInt32 = 0
    for at in stride(from: bytes.startIndex, to: bytes.endIndex, by: 2) {
      sum += UInt32(bytes[at]) << 8 | UInt32(at + 1 < bytes.endIndex ? bytes[at + 1] : 0)
    }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    return ~UInt16(sum)
  }

  static func ping(payload: [UInt8]) -> [UInt8] {
    var ip: [UInt8] = [
      0x45, 0, 0, UInt8(28 + payload.count), 0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 3,
    ]
    let header = sum(ip[...])
    (ip[10], ip[11]) = (UInt8(header >> 8), UInt8(truncatingIfNeeded: header))
    var icmp: [UInt8] = [8, 0, 0, 0, 0x12, 0x34, 0, 1] + payload
    let whole = sum(icmp[...])
    (icmp[2], icmp[3]) = (UInt8(whole >> 8), UInt8(truncatingIfNeeded: whole))
    return nic + asker + [8, 0] + ip + icmp
  }

  @Test(arguments: [1, 2]) func itAnswersInPlaceAndGivesEverySegmentBack(_ queues: Int) throws {
    let running = try Running(queues: queues)
    let supervisor = running.supervisor
    let queue = queues - 1
    var host = supervisor.hostEnd(queue)
    var burst = Burst(capacity: 64)
    for round in 0..<100 {
      let segment = UInt32(round % 32) * 2
      let position = Int(segment) * 1024 + 64
      let isARP = round % 3 == 0
      let frame =
        isARP
        ? Self.arpRequest(for: 3)
        : Self.ping(payload: (0..<UInt8(round)).map { $0 })
      supervisor.arena.address.advanced(by: position).copyMemory(
        from: frame, byteCount: frame.count)
      // Now and then nobody has rung for a while: the program is asleep.
      if round % 10 == 0 { usleep(5000) }
      burst.append(Descriptor(segment: segment, offset: 64, length: UInt32(frame.count)))
      host.receive.push(&burst)
      host.doorbell.ring()

      let sent = try Self.take(&host.transmit, into: &burst)
      try #require(sent == 1)
      let answer = burst[0]
      #expect(answer.segment == segment && answer.offset == 64)
      #expect(answer.length == UInt32(frame.count) && answer.flags == [])
      let bytes = (0..<frame.count).map {
        supervisor.arena.address.load(fromByteOffset: position + $0, as: UInt8.self)
      }
      #expect(Array(bytes[0..<6]) == Self.asker && Array(bytes[6..<12]) == Self.nic)
      if isARP {
        #expect(bytes[21] == 2)
        #expect(Array(bytes[22..<42]) == Self.nic + [10, 0, 0, 3] + Self.asker + [10, 0, 0, 1])
      } else {
        #expect(Array(bytes[26..<34]) == [10, 0, 0, 3, 10, 0, 0, 1])
        #expect(bytes[34] == 0 && Array(bytes[38...]) == Array(frame[38...]))
        #expect(Self.sum(bytes[14..<34]) == 0 && Self.sum(bytes[34...]) == 0)
      }
      // Not given back before the device has done with it.
      let isKept = host.free.isEmpty()
      #expect(isKept)
      host.completion.push(&burst)
      host.doorbell.ring()
      let back = try Self.take(&host.free, into: &burst)
      try #require(back == 1)
      let returned = burst[0].segment
      #expect(returned == segment)
      burst.removeAll()
    }
    supervisor.channel.askToEnd()
    ControlMessage.send("stop", to: supervisor.socket)
    #expect(running.end().contains("100 answered, 0 ignored"))
    #expect(running.process.terminationStatus == 0)
  }

  @Test func whatIsNotForItGoesBack() throws {
    let running = try Running(queues: 1)
    var host = running.supervisor.hostEnd()
    var burst = Burst(capacity: 64)
    var wrongSum = Self.ping(payload: [1, 2, 3])
    wrongSum[20] = 0x20  // More fragments.
    let frames = [
      Self.arpRequest(for: 4), Array(Self.arpRequest(for: 3).prefix(41)), [1, 2, 3], wrongSum,
      Array(Self.ping(payload: [1]).dropLast()),
    ]
    for (index, frame) in frames.enumerated() {
      running.supervisor.arena.address.advanced(by: index * 2048)
        .copyMemory(from: frame, byteCount: frame.count)
      burst.append(Descriptor(segment: UInt32(index) * 2, length: UInt32(frame.count)))
    }
    // A packet of two pieces too.
    burst.append(Descriptor(segment: 20, length: 60, flags: .more))
    burst.append(Descriptor(segment: 22, length: 60))
    host.receive.push(&burst)
    host.doorbell.ring()
    var back: [UInt32] = []
    while back.count < 7 {
      guard try Self.take(&host.free, into: &burst) > 0 else { break }
      for index in 0..<burst.count { back.append(burst[index].segment) }
      burst.removeAll()
    }
    #expect(back.sorted() == [0, 2, 4, 6, 8, 20, 22])
    let isSilent = host.transmit.isEmpty()
    #expect(isSilent)
    running.supervisor.channel.askToEnd()
    ControlMessage.send("stop", to: running.supervisor.socket)
    #expect(running.end().contains("0 answered, 7 ignored"))
  }

  @Test func aHostThatBreaksTheRulesDoesNotCrashIt() throws {
    for slot in [
      Descriptor(segment: .max, offset: .max, length: .max), Descriptor(segment: 64, length: 60),
    ] {
      let running = try Running(queues: 1)
      var host = running.supervisor.hostEnd()
      var burst = Burst(capacity: 1)
      burst.append(slot)
      host.receive.push(&burst)
      host.doorbell.ring()
      #expect(running.end().contains("outside the receive part"))
      #expect(running.process.terminationReason == .exit)
    }
    // The supervisor's end alone is one too.
    let running = try Running(queues: 1)
    shutdown(running.supervisor.socket, Int32(SHUT_RDWR))
    #expect(running.end().contains("the supervisor has gone"))
    #expect(running.process.terminationReason == .exit)
  }
}
