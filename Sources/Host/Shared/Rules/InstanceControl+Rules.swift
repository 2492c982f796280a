import Channel
import Memory

/// Rules that the supervisor tells of: `rules generation= bytes= counters= first=` with two descriptors, the
/// text and the counters. `first` is the first rule's number in captures.
extension InstanceControl {
  /// - Throws: where they are refused; the descriptors are the caller's then.
  func setRules(_ message: ControlMessage, _ descriptors: [Int32]) throws(Refusal) {
    guard descriptors.count == 2 else { throw Refusal("wrong number of descriptors") }
    guard let generation: UInt64 = message.number("generation"),
      let textBytes: Int = message.number("bytes"),
      let counterBytes: Int = message.number("counters"),
      (0...RuleProgram.maximumTextBytes).contains(textBytes), (1...(1 << 28)).contains(counterBytes)
    else { throw Refusal("a number is missing") }
    let text = try adopt(descriptors[0], byteCount: max(1, textBytes), isWritable: false)
    let counters = try adopt(descriptors[1], byteCount: counterBytes, isWritable: true)
    let program = try RuleProgram(
      text: text, byteCount: textBytes, counters: counters, queues: mailboxes.count,
      firstNumber: message.number("first") ?? 0, before: rules)
    close(descriptors)
    rules = program.set.rules.isEmpty ? nil : program
    post("ruled generation=\(generation)", newTable: tableOfNow()) { _, _ in }
  }

  /// A view of memory whose descriptor stays the caller's.
  private func adopt(
    _ descriptor: Int32, byteCount: Int, isWritable: Bool
  ) throws(Refusal) -> Arena {
    let own = try copy(descriptor)
    do throws(MemoryError) {
      return try Arena(
        adopting: own, byteCount: byteCount, writable: isWritable, keepsDescriptor: false)
    } catch {
      throw Refusal(error.description)
    }
  }
}
