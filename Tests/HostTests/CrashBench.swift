import Channel
import Driver
import Glibc
import Memory
import Testing

@testable import Channel
@testable import Host

/// All that is left when a driver host ends: the channel, the record, and what its instance knows.
struct Remains {
  var channel: [UInt8]
  var record: [UInt8]
  var instance: PlayedInstance.State
  var point: PathRecord.CrashPoint
}

/// A stack instance that keeps what it receives for a while and gives each tag to one packet at a time.
final class PlayedInstance {
  struct State {
    /// Segments that it has received and not given back.
    var held: [UInt32] = []
    /// Tags of packets that it has sent and that have not come back.
    var outstanding: Set<UInt16> = []
    var nextTag: UInt16 = 0
    var completed = 0
  }

  let memory: ChannelMemory
  var end: InstanceEnd
  var state = State()
  private var burst = Burst(capacity: 256)
  /// Where what it sends lies, in units.
  let firstUnit: UInt32
  /// A tag has come back that was not outstanding.
  var wrongTags: [UInt16] = []

  static let slots = 128

  init(firstUnit: UInt32) throws {
    memory = try ChannelMemory(layout: try #require(ChannelLayout(queues: 1, slots: Self.slots)))
    end = InstanceEnd(memory, queue: 0, hostDoorbell: -1)
    self.firstUnit = firstUnit
  }

  /// The instance as it was when the host ended, on a copy of the channel.
  convenience init(_ remains: Remains, firstUnit: UInt32) throws {
    try self.init(firstUnit: firstUnit)
    memory.bytes.copyBytes(from: remains.channel)
    state = remains.instance
    let layout = memory.layout
    func index(_ offset: Int) -> UInt32 {
      memory.bytes.load(fromByteOffset: offset, as: UInt32.self)
    }
    end.receive.next = index(layout.consumerIndex(0, .receive))
    end.completion.next = index(layout.consumerIndex(0, .completion))
    end.receive.peerIndex = end.receive.next
    end.completion.peerIndex = end.completion.next
    end.transmit.next = index(layout.producerIndex(0, .transmit))
    end.free.next = index(layout.producerIndex(0, .free))
    end.transmit.peerIndex = end.transmit.next &- UInt32(Self.slots)
    end.free.peerIndex = end.free.next &- UInt32(Self.slots)
  }

  func send(_ packets: Int) {
    for number in 0..<packets {
      while state.outstanding.contains(state.nextTag) { state.nextTag &+= 1 }
      let pieces = number % 3 == 2 ? 2 : 1
      if end.transmit.room() < pieces { return }
      for piece in 0..<pieces {
        burst.append(
          Descriptor(
            segment: firstUnit + 2 * UInt32(piece), length: 60,
            flags: piece + 1 < pieces ? .more : [], tag: piece == 0 ? state.nextTag : 0))
      }
      end.transmit.push(&burst)
      state.outstanding.insert(state.nextTag)
      state.nextTag = (state.nextTag &+ 1) % 500
    }
  }

  /// Takes what has come.
  func take(_ limit: Int = .max) throws {
    var room = Burst(capacity: 128)
    try end.receive.pop(into: &room)
    for index in 0..<room.count where !room[index].flags.contains(.offload) {
      state.held.append(room[index].segment)
    }
    room.removeAll()
    try end.completion.pop(into: &room)
    for index in 0..<room.count {
      if state.outstanding.remove(room[index].tag) == nil { wrongTags.append(room[index].tag) }
      state.completed += 1
    }
  }

  func giveBack(_ count: Int) {
    for _ in 0..<min(count, state.held.count) {
      if end.free.room() == 0 { return }
      burst.append(Descriptor(segment: state.held.removeFirst()))
      end.free.push(&burst)
    }
  }

  /// Slots of a ring between two indices.
  func slots(_ ring: ChannelLayout.Ring, from: UInt32, to: UInt32) -> [Descriptor] {
    var result: [Descriptor] = []
    var index = from
    while index != to {
      let offset =
        memory.layout.slots(0, ring) + Int(index % UInt32(Self.slots)) * 16
      result.append(memory.bytes.load(fromByteOffset: offset, as: Descriptor.self))
      index &+= 1
    }
    return result
  }

  func published(_ ring: ChannelLayout.Ring) -> UInt32 {
    memory.bytes.load(fromByteOffset: memory.layout.producerIndex(0, ring), as: UInt32.self)
  }
  func taken(_ ring: ChannelLayout.Ring) -> UInt32 {
    memory.bytes.load(fromByteOffset: memory.layout.consumerIndex(0, ring), as: UInt32.self)
  }
}

/// Memory for a record, and what is found in it.
final class RecordMemory {
  let start: UnsafeMutableRawPointer
  let byteCount: Int
  static let segments = 256

  init(_ bytes: [UInt8]? = nil) {
    byteCount = PathRecord.byteCount(segments: Self.segments)
    start = .allocate(byteCount: byteCount, alignment: 64)
    start.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    if let bytes { start.copyMemory(from: bytes, byteCount: byteCount) }
  }

  deinit { start.deallocate() }

  var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: start, count: byteCount)) }
  var record: PathRecord { PathRecord(start, segments: Self.segments) }
  func ledger(_ record: borrowing PathRecord) -> SegmentLedger {
    SegmentLedger(firstUnit: 0, byteCount: Self.segments * 2048, owners: record.ownerBytes)
  }
}

/// A number that follows from another one.
struct Dice {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed &* 2 &+ 1 }
  mutating func roll(_ sides: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int(state >> 33) % sides
  }
}

extension Remains {
  /// What a host has left that ends now.
  init(_ instance: PlayedInstance, _ memory: RecordMemory, at point: PathRecord.CrashPoint) {
    self.init(
      channel: Array(instance.memory.bytes), record: memory.bytes, instance: instance.state,
      point: point)
  }

  /// What was seen, and what lies between the steps that change owners and tags.
  static func all(_ seen: [Remains]) -> [Remains] {
    var all = seen
    for (first, second) in zip(seen, seen.dropFirst())
    where first.point == .begun && second.point == .marked {
      all += between(first, second)
    }
    return all
  }

  /// All states of the record between two steps: changes of single bytes, one after the other, in either direction.
  static func between(_ first: Remains, _ second: Remains) -> [Remains] {
    let changed = first.record.indices.filter { first.record[$0] != second.record[$0] }
    var result: [Remains] = []
    for order in [changed, changed.reversed()] {
      var state = first
      for index in order.dropLast() {
        state.record[index] = second.record[index]
        result.append(state)
      }
    }
    return result
  }
}
