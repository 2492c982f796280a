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
  static let needed = [
    "--arena-bytes", "4096", "--receive-bytes", "2048", "--mac", "02:00:00:00:00:01",
  ]

  @Test func wrongArgumentsAreNamed() throws {
    _ = try InstanceArguments(Self.needed)
    for (arguments, text) in [
      (["--mac"], "lacks"), (["--mac", "x"], "x is no value of --mac"),
      (["--nonsense", "1"], "--nonsense"), (["--address", "10.0.0.2"], "--address"),
      (["--address", "10.0.0.2/33"], "--address"), (["--http", "70000"], "--http"),
      (["--fetch", "10.0.0.1:80"], "--fetch"), ([], "martlet run"),
      (["--receive-bytes", "5000"], "martlet run"),
    ] {
      var said = ""
      do {
        _ = try InstanceArguments((arguments.isEmpty ? [] : Self.needed) + arguments)
      } catch { said = error.description }
      #expect(said.contains(text), "\(arguments): \(said)")
    }
  }
}
