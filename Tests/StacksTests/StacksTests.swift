import Stacks
import Testing

@Suite struct PatternContentTests {
  @Test func anyPieceIsPartOfTheWhole() {
    var whole = [UInt8](repeating: 0, count: 4096)
    whole.withUnsafeMutableBytes { PatternContent.fill($0, offset: 0) }
    for (start, count) in [(0, 1), (1, 7), (3, 100), (8, 8), (4000, 96), (13, 1000)] {
      var piece = [UInt8](repeating: 0, count: count)
      piece.withUnsafeMutableBytes { PatternContent.fill($0, offset: UInt64(start)) }
      #expect(piece == Array(whole[start..<start + count]))
      piece.withUnsafeBytes {
        #expect(PatternContent.firstDifference($0, offset: UInt64(start)) == nil)
      }
      piece[count - 1] ^= 1
      piece.withUnsafeBytes {
        #expect(PatternContent.firstDifference($0, offset: UInt64(start)) == count - 1)
      }
    }
  }
}

@Suite struct InstanceArgumentsTests {
  @Test func wrongArgumentsAreNamed() throws {
    _ = try InstanceArguments([])
    for (arguments, text) in [
      (["--stack"], "lacks"), (["--mode", "x"], "x is no value of --mode"),
      (["--nonsense", "1"], "--nonsense"), (["--address", "10.0.0.2"], "--address"),
      (["--address", "10.0.0.2/33"], "--address"), (["--http", "70000"], "--http"),
      (["--fetch", "10.0.0.1:80"], "--fetch"), (["--tap", "x"], "--tap"),
      // What an instance is given comes with its welcome, not here.
      (["--arena-bytes", "4096"], "--arena-bytes"),
    ] {
      let error = #expect(throws: StackError.self) { try InstanceArguments(arguments) }
      #expect(try #require(error).description.contains(text), "\(arguments)")
    }
  }
}
