import PlainClassifier
import Steering
import Testing

/// Looks up in a copy of exactly the frame's size, so that a sanitizer sees a read behind the end.
func match(_ frame: [UInt8], _ view: ClassifierView) -> Int {
  let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, frame.count), alignment: 1)
  defer { copy.deallocate() }
  frame.withUnsafeBytes {
    if let start = $0.baseAddress { copy.copyMemory(from: start, byteCount: $0.count) }
  }
  let packet = PacketHeader(frame: copy, byteCount: frame.count)
  return view.match(packet, frame: copy, byteCount: frame.count)
}

@Suite struct ClassifierTests {
  /// Every packet hits the rule that a plain search through all of them says; sets of few rules, of many, and of many
  /// that ask for different bits each.
  @Test(arguments: [1, 3, 16, 17, 60, 300])
  func itSaysWhatThePlainOneSays(_ count: Int) throws {
    var hits = 0
    for round in 0..<(count > 100 ? 2 : 8) {
      let set = try RandomRules.set(count, withProtocols: round % 2 == 1)
      let classifier = try Classifier(set)
      for _ in 0..<300 {
        let frame = RandomFrames.frame()
        let expected = set.plainMatch(frame)
        let found = match(frame, classifier.view)
        if found != expected {
          let text = { $0 < 0 ? "none" : set.rules[$0].description }
          Issue.record("\(frame): \(text(found)), not \(text(expected))")
          return
        }
        hits += found >= 0 ? 1 : 0
      }
    }
    #expect(hits > 50 || count <= 3)
  }
}
