import CLinux
import Driver
import Glibc
import PCI
import Testing
import VhostUser

@testable import VhostUserMessages

/// Whatever a back-end answers, the front-end ends with an error that says what was wrong, in time.
@Suite(.serialized) struct HostileBackEndTests {
  private func failure(
    _ script: @escaping ScriptedBackEnd.Script
  ) -> String {
    let backEnd = ScriptedBackEnd(script)
    defer { backEnd.end() }
    return attempt(backEnd.path)
  }

  /// All that a front-end does up to a running driver; what ended it.
  private func attempt(_ path: String) -> String {
    do {
      let front = try FrontEnd(path: path, timeout: 500)
      var driver = try front.makeDriver()
      try driver.start()
      _ = try driver.handleConfigurationChange()
      driver.stop()
      return "none"
    } catch {
      return "\(error)"
    }
  }

  /// A good back-end but for one request.
  private func failure(
    at request: VhostUserRequest, _ bytes: @escaping @Sendable (VhostUserHeader) -> [UInt8]?
  ) -> String {
    failure { header, payload in
      header.request == request.rawValue ? bytes(header) : ScriptedBackEnd.good(header, payload)
    }
  }

  @Test func aGoodOneIsDriven() {
    #expect(failure { ScriptedBackEnd.good($0, $1) } == "none")
  }

  @Test func oneThatNeverAnswersEndsWithOneClearLine() {
    let text = failure(at: .getFeatures) { _ in [] }
    #expect(text.contains("no answer to GET_FEATURES within 500 ms"))
    #expect(failure(at: .setMemoryTable) { _ in [] }.contains("no answer to SET_MEM_TABLE"))
    #expect(failure(at: .setVringAddresses) { _ in [] }.contains("no answer to SET_VRING_ADDR"))
  }

  @Test(
    arguments: [
      .getFeatures, .setOwner, .getProtocolFeatures, .setMemoryTable, .getQueueCount,
      .getConfiguration, .setVringKick,
    ] as [VhostUserRequest])
  func oneThatHangsUpIsGone(request: VhostUserRequest) {
    // The answer to SET_OWNER is not waited for: the next request finds the socket closed.
    #expect(failure(at: request) { _ in nil }.contains("no longer answers"))
  }

  @Test(
    arguments: [
      .setMemoryTable, .setVringSize, .setVringBase, .setVringAddresses, .setVringCall,
      .setVringKick,
    ] as [VhostUserRequest])
  func aRefusalIsSaid(request: VhostUserRequest) {
    let text = failure(at: request) {
      ScriptedBackEnd.reply($0.request, VhostUserNumber(1).bytes)
    }
    #expect(text.contains("the back-end refuses \(request.name)"))
  }

  @Test func refusedFeaturesAreNotUsed() {
    let text = failure(at: .setFeatures) {
      ScriptedBackEnd.reply($0.request, VhostUserNumber(1).bytes)
    }
    #expect(text.contains("refuses the features"))
  }

  @Test func answersThatBreakTheProtocol() {
    typealias Back = ScriptedBackEnd
    let answers: [(String, @Sendable (VhostUserHeader) -> [UInt8]?)] = [
      ("no 64-bit number", { Back.reply($0.request, [1, 2, 3]) }),
      ("no 64-bit number", { Back.reply($0.request, [UInt8](repeating: 0, count: 16)) }),
      ("no 64-bit number", { Back.reply($0.request, []) }),
      ("an answer to 2", { _ in Back.reply(2, VhostUserNumber(1).bytes) }),
      ("over the limit", { Back.reply($0.request, [], size: 5000) }),
      ("within 500 ms", { Back.reply($0.request, [1, 2, 3, 4], size: 8) }),
      ("a message of version 2", { _ in [1, 0, 0, 0, 2 | 4, 0, 0, 0, 0, 0, 0, 0] }),
      ("the request 1", { _ in [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] }),
    ]
    for (text, answer) in answers {
      #expect(failure(at: .getFeatures, answer).contains(text))
    }
  }

  @Test func numbersThatMakeNoSense() {
    for pairs: UInt64 in [0, 0x8001, .max] {
      let text = failure(at: .getQueueCount) {
        ScriptedBackEnd.reply($0.request, VhostUserNumber(pairs).bytes)
      }
      #expect(text.contains("queue pairs"))
    }
    #expect(
      failure(at: .getFeatures) { ScriptedBackEnd.reply($0.request, VhostUserNumber(0).bytes) }
        .contains("legacy"))
    #expect(
      failure(at: .getConfiguration) {
        ScriptedBackEnd.reply(
          $0.request, VhostUserConfiguration(offset: 0, data: [1, 2]).bytes)
      }.contains("GET_CONFIG"))
    #expect(
      failure(at: .getConfiguration) { ScriptedBackEnd.reply($0.request, []) }
        .contains("GET_CONFIG"))
  }

  @Test func oneThatTalksOutOfTurnIsGivenUp() {
    let text = failure { header, payload in
      let good = ScriptedBackEnd.good(header, payload)
      // With the last word of the set-up comes one that nobody asked for.
      guard header.request == VhostUserRequest.setStatus.rawValue, payload[0] & 4 != 0 else {
        return good
      }
      return good + ScriptedBackEnd.reply(1, VhostUserNumber(7).bytes)
    }
    #expect(text.contains("no longer answers"))
  }

  @Test func descriptorsWithAnAnswerAreRefusedAndClosed() throws {
    let file = linux_memfd_create("gift", LINUX_MFD_CLOEXEC)
    defer { close(file) }
    let backEnd = ScriptedBackEnd(gift: file) { ScriptedBackEnd.good($0, $1) }
    #expect(attempt(backEnd.path).contains("descriptors with its answer"))
    backEnd.end()
    var status = stat()
    fstat(file, &status)
    let open = (0..<Int32(4096)).count { number in
      var other = stat()
      return fstat(number, &other) == 0 && other.st_ino == status.st_ino
    }
    #expect(open == 1)
  }

  /// Without protocol features: no acknowledgements, no status, no configuration; an address of the front-end's own.
  @Test func anOldOneIsDrivenToo() throws {
    let backEnd = ScriptedBackEnd { header, payload in
      header.request == VhostUserRequest.getFeatures.rawValue
        ? ScriptedBackEnd.reply(1, VhostUserNumber(1 << 32).bytes)
        : ScriptedBackEnd.good(header, payload)
    }
    defer { backEnd.end() }
    let front = try FrontEnd(path: backEnd.path, timeout: 500)
    var driver = try front.makeDriver()
    let address = driver.interface.macAddress
    #expect(address.bytes.0 & 3 == 2 && driver.interface.linkIsUp)
    try driver.start()
    driver.stop()
    driver = try front.makeDriver()
    #expect(driver.interface.macAddress == address)
    driver.stop()
    try front.access.quiesce()
  }
}
