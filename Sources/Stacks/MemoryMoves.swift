import Channel
import Glibc
import Memory

/// What the supervisor has said of the end of an instance's arena and what has not been done yet.
struct MemoryMoves {
  /// Extents have come since the stack last heard of it.
  var hasGrown = false
  /// Where the arena is to end; nil where nothing is to be given up.
  var target: Int?
  /// Answers that the supervisor is owed: one to each time that it has asked.
  var answersDue = 0
  /// It wants to have what is free now, and no more.
  var isLastCall = false

  mutating func noteShrink(to byteCount: Int) {
    answersDue += 1
    if let target, byteCount > target { isLastCall = true } else { target = byteCount }
  }
}

extension InstanceEnvironment {
  /// An extent has come: it is mapped behind what there is.
  func extend(_ message: ControlMessage, _ descriptors: [Int32]) throws(StackError) {
    for descriptor in descriptors.dropFirst() { close(descriptor) }
    guard let descriptor = descriptors.first, let offset: Int = message.number("offset"),
      let byteCount: Int = message.number("bytes")
    else { throw StackError("the supervisor gives memory that cannot be: \(message.rest)") }
    try asStackError { () throws(MemoryError) in
      try arena.extend(adopting: descriptor, at: offset, byteCount: byteCount)
    }
    moves.hasGrown = true
    isMoving = true
  }

  /// Gives up what the stack has let go of, and says so.
  func shrink(to byteCount: Int) throws(StackError) {
    try asStackError { () throws(MemoryError) in try arena.shrink(to: byteCount) }
    for _ in 0..<moves.answersDue { connection.send("shrunk bytes=\(arena.byteCount)") }
    moves = MemoryMoves()
    isMoving = false
  }
}

extension InstanceLoop where Stack: ~Copyable {
  /// Tells the stack of memory that has come, and gets from it what is to be given up.
  @usableFromInline @inline(never)
  mutating func moveMemory() throws(StackError) {
    let environment = channel.environment
    if environment.moves.hasGrown {
      environment.moves.hasGrown = false
      stack.memoryDidGrow(to: environment.arena.byteCount)
    }
    guard let wanted = environment.moves.target else {
      environment.isMoving = false
      return
    }
    let now = environment.arena.byteCount
    let target = environment.arena.extentEnd(from: wanted)
    if target < now, !stack.memoryWillShrink(to: target) {
      // What is still in use goes on being so.
      if !environment.moves.isLastCall { return }
      let end = environment.arena.extentEnd(from: max(target, stack.memoryEndInUse))
      stack.memoryDidShrink(to: end)
      return try environment.shrink(to: end)
    }
    if target < now { stack.memoryDidShrink(to: target) }
    try environment.shrink(to: target)
  }
}
