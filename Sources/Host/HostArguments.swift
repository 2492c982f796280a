import Channel
import VFIO

/// What the supervisor tells a driver host on its command line; everything else comes as descriptors.
struct HostArguments {
  var access = DeviceAccessKind.vfio
  var deviceName = "device"
  var ringsIOVA: UInt64 = 0
  var ringsBytes = 0
  var arenaIOVA: UInt64 = 0
  var arenaBytes = 0
  /// Where the arena has to be mapped; nil for anywhere.
  var arenaAddress: UInt?
  /// The arena's first bytes are the host's and device-writable; the rest is the instance's.
  var receiveBytes = 0
  /// Many instances share the function; the arena is the host's own then.
  var isShared = false
  /// Bytes of addresses for the arenas of host and instances, in shared mode.
  var windowBytes = 0
  var queues = 1
  var ringSize = 256
  /// Bytes behind the Ethernet header, where the device leaves the choice; nil for what is usual.
  var mtu: Int?
  /// Features that the driver is to leave alone.
  var without: [String] = []
  var mode = PollMode.adaptive
  /// The core of each queue pair's thread; none for any.
  var cores: [Int] = []
  var isConfined = true
  var requiresPlatformAccess = false
  /// A trace of the run goes to an inherited pipe.
  var isRecorded = false
  /// A host before this one had the same memory: its counters go on.
  var isResumed = false
  /// It waits for its device, and touches nothing before.
  var isStandby = false

  /// - Parameter arguments: without the program's name: `--name value` pairs.
  init(_ arguments: [String]) throws(HostError) {
    var index = 0
    while index < arguments.count {
      let name = arguments[index]
      guard index + 1 < arguments.count else { throw .arguments("\(name) lacks its value") }
      let value = arguments[index + 1]
      index += 2
      switch name {
      case "--access":
        guard let kind = DeviceAccessKind(rawValue: value) else { throw Self.bad(name, value) }
        access = kind
      case "--device-name": deviceName = value
      case "--rings-iova": ringsIOVA = try Self.number(name, value)
      case "--rings-bytes": ringsBytes = try Self.number(name, value)
      case "--arena-iova": arenaIOVA = try Self.number(name, value)
      case "--arena-bytes": arenaBytes = try Self.number(name, value)
      case "--arena-address": arenaAddress = try Self.number(name, value) as UInt
      case "--receive-bytes": receiveBytes = try Self.number(name, value)
      case "--shared": isShared = value == "yes"
      case "--window-bytes": windowBytes = try Self.number(name, value)
      case "--queues": queues = try Self.number(name, value)
      case "--ring-size": ringSize = try Self.number(name, value)
      case "--mtu": mtu = try Self.number(name, value) as Int
      case "--without": without = value.split(separator: ",").map(String.init)
      case "--mode":
        guard let chosen = PollMode(rawValue: value) else { throw Self.bad(name, value) }
        mode = chosen
      case "--cores":
        cores = []
        for core in value.split(separator: ",") {
          cores.append(try Self.number(name, String(core)))
        }
      case "--confined": isConfined = value != "no"
      case "--behind-iommu": requiresPlatformAccess = value == "yes"
      case "--recorded": isRecorded = value == "yes"
      case "--turn":
        guard ["first", "next", "standby"].contains(value) else { throw Self.bad(name, value) }
        isResumed = value != "first"
        isStandby = value == "standby"
      default: throw .arguments("\(name) is not an option of martlet-host")
      }
    }
    guard receiveBytes > 0, receiveBytes < arenaBytes, ringsBytes > 0, queues > 0 else {
      throw .arguments("martlet-host is started by `martlet run`, which says what memory there is")
    }
    guard !isShared || windowBytes >= arenaBytes else {
      throw .arguments("--window-bytes \(windowBytes) has no room for --arena-bytes \(arenaBytes)")
    }
    guard !isShared || !isRecorded else {
      throw .arguments("a run is recorded with one instance of its own, not where many share")
    }
    guard cores.isEmpty || cores.count == queues else {
      throw .arguments("--cores names \(cores.count) cores for \(queues) queue pairs")
    }
    // What several queues need, such as random keys that spread flows, is not the same in a replay.
    guard !isRecorded || queues == 1 else {
      throw .arguments("a run is recorded with one queue pair, not with \(queues)")
    }
  }

  private static func number<N: FixedWidthInteger>(
    _ name: String, _ text: String
  ) throws(HostError) -> N {
    guard let value = N(text) else { throw bad(name, text) }
    return value
  }

  private static func bad(_ name: String, _ value: String) -> HostError {
    .arguments("\(value) is no value of \(name)")
  }
}
