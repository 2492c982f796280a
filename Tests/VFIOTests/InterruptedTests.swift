import CLinux
import Glibc
import Memory
import PCI
import Testing
import VFIO
import VFIOUserMessages

/// Signals to one thread, one after the other, whose handler does nothing: its system calls end early (EINTR), or with
/// less than was asked for.
private final class SignalStorm: @unchecked Sendable {
  private let target = pthread_self()
  private let ending = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
  private var thread = pthread_t()
  private var before = sigaction()

  init() {
    ending.initialize(to: 0)
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in }
    sigaction(SIGUSR2, &action, &before)
    pthread_create(
      &thread, nil,
      { argument in
        let storm = Unmanaged<SignalStorm>.fromOpaque(argument!).takeUnretainedValue()
        while relaxed_load32(storm.ending) == 0 {
          pthread_kill(storm.target, SIGUSR2)
          usleep(20)
        }
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  func end() {
    relaxed_store32(ending, 1)
    pthread_join(thread, nil)
    sigaction(SIGUSR2, &before, nil)
    ending.deallocate()
  }
}

@Suite(.serialized) struct InterruptedTests {
  /// Messages far larger than the sockets' buffers go in many pieces each way, while the client's thread is interrupted.
  @Test func exchangesGoOnThroughSignalsAndSmallBuffers() throws {
    let byteCount = 256 << 10
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0x5a, count: byteCount)
    let server = ScriptedServer { header, payload, stream in
      guard header.command == 9 else { return ScriptedServer.good(header, payload) }
      // The device reads all of the memory, and writes it back turned round.
      var request = ByteWriter()
      DMAAccessMessage(address: 0x1000, count: UInt64(byteCount)).write(to: &request)
      let end = monotonic_nanoseconds() + 30_000_000_000
      try? stream.send(
        MessageHeader(identifier: 1, command: 11, size: 0), request.bytes, deadline: end)
      guard let answer = try? stream.receive(deadline: end) else { return nil }
      request.write(answer.payload.dropFirst(16).map { ~$0 })
      try? stream.send(
        MessageHeader(identifier: 2, command: 12, size: 0), request.bytes, deadline: end)
      guard (try? stream.receive(deadline: end)) != nil else { return nil }
      return ScriptedServer.good(header, payload)
    }
    var small: Int32 = 4096
    for option in [SO_SNDBUF, SO_RCVBUF] {
      setsockopt(server.client, SOL_SOCKET, option, &small, 4)
    }
    let function = try VFIOUserFunction(
      negotiated: server.client,
      served: [DMARange(address: memory, iova: 0x1000, byteCount: byteCount)], timeout: 10_000)
    let storm = SignalStorm()
    defer { storm.end() }
    for round in 0..<20 {
      #expect(try function.readConfiguration(at: 0, width: .dword) == 0x1111_1111)
      let wanted: UInt8 = round % 2 == 0 ? 0xa5 : 0x5a
      let bytes = UnsafeRawBufferPointer(start: memory, count: byteCount)
      #expect(bytes.allSatisfy { $0 == wanted })
    }
  }
}
