import Channel
import Glibc
import Host
import Memory
import VFIO

/// The pages of a run's counters on their way to a process that may read them: a line and a descriptor each. Who has them
/// reads by itself, and disturbs nobody.
struct CounterHandout: ~Copyable {
  private let summary: String
  private var pages: [(text: String, descriptor: Int32)] = []
  private var rules: [(text: String, descriptors: [Int32])] = []

  /// - Parameter summary: what the run is, in `name=value` pairs.
  init(_ summary: String) { self.summary = summary }

  /// - Parameter text: whose page it is, in `name=value` pairs.
  mutating func add(_ page: borrowing CounterPage, _ text: String) {
    // Without a descriptor that page is not handed out; the others are.
    guard let descriptor = try? page.makeReadOnlyDescriptor() else { return }
    pages.append(
      ("page \(text) entries=\(page.count) histograms=\(page.histogramCount)", descriptor))
  }

  var descriptors: [Int32] { pages.map(\.descriptor) + rules.flatMap(\.descriptors) }

  /// Adds what the rules count that the driver host goes by.
  mutating func add(_ book: RuleBook) {
    for (page, before) in book.pages {
      guard let handout = try? page.handout(before: before) else { continue }
      rules.append(handout)
    }
  }

  func say(to connection: PeerConnection) {
    connection.say("run \(summary)")
    for page in pages { connection.say(page.text, [page.descriptor]) }
    for page in rules { connection.say(page.text, page.descriptors) }
    connection.say("end")
  }

  deinit {
    for page in pages { close(page.descriptor) }
    for descriptor in rules.flatMap(\.descriptors) { close(descriptor) }
  }
}

extension RunPlan {
  /// What a run is, for those who read its counters.
  func summary(_ interface: InterfaceDescription, of access: any DeviceAccess) -> String {
    "device=\(access.name.replacing(" ", with: "_")) mac=\(interface.macAddress) mtu=\(interface.mtu)"
      + " queues=\(interface.queues) ring-size=\(ringSize) mode=\(mode.rawValue)"
      + " slots=\(DriverHost.channelSlots)"
  }
}

extension RunDevice {
  /// Counts of faults, and the processes of a run, for those who look what these cost.
  var ownCounters: [(name: String, value: UInt64)] {
    var values = [
      (name: "iommu_faults", value: faults), (name: "supervisor_process", value: UInt64(getpid())),
    ]
    if let process { values.append(("device_process", UInt64(process.identifier))) }
    return values
  }
}
