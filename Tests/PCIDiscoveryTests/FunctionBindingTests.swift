import Glibc
import Testing

@testable import PCIDiscovery

@Suite struct FunctionBindingTests {
  let fabricated = FabricatedMachine()
  static let text = "0000:00:03.0"
  let address = PCIAddress(text)!
  let record = "/run/martlet/bound/\(text)"

  init() {
    fabricated.addDriver("vfio-pci")
    fabricated.addFunction(Self.text, driver: "virtio-pci", group: 4)
    fabricated.addInterface("eth1", on: Self.text)
  }

  var function: DiscoveredFunction { get throws { try fabricated.bus.function(named: Self.text) } }
  var override: String? {
    fabricated.machine.text("/sys/bus/pci/devices/\(Self.text)/driver_override")
  }

  @Test func thereAndBackAgain() throws {
    let there = try fabricated.binding.bind(function)
    #expect(there == .init(formerDriver: "virtio-pci", changed: true, overridden: []))
    #expect(fabricated.driver(Self.text) == "vfio-pci" && override == "vfio-pci")
    #expect(fabricated.machine.text(record) == "virtio-pci")
    #expect(
      fabricated.writes == [
        "\(Self.text)/driver_override vfio-pci", "virtio-pci/unbind \(Self.text)",
        "pci/drivers_probe \(Self.text)",
      ])
    // A second call changes nothing, and does not forget the driver.
    #expect(try fabricated.binding.bind(function).changed == false)
    let back = try fabricated.binding.unbind(function)
    #expect(back.formerDriver == "virtio-pci")
    #expect(fabricated.driver(Self.text) == "virtio-pci" && override == "(null)")
    #expect(fabricated.machine.text(record) == nil)
  }

  @Test func aFunctionWithoutDriverIsGivenBackToNone() throws {
    fabricated.setDriver(Self.text, nil)
    unlink("\(fabricated.root)/sys/class/net/eth1")
    try fabricated.binding.bind(function)
    #expect(fabricated.machine.text(record) == "")
    try fabricated.binding.unbind(function)
    #expect(fabricated.driver(Self.text) == nil)
  }

  @Test func whereNobodyWroteItDownTheKernelChooses() throws {
    try fabricated.binding.bind(function)
    unlink(fabricated.root + record)
    #expect(try fabricated.binding.unbind(function).formerDriver == "virtio-pci")
  }

  @Test func aRecordThatNamesAPathIsNotFollowed() throws {
    try fabricated.binding.bind(function)
    fabricated.file(String(record.dropFirst()), "../../../../tmp\n")
    #expect(try fabricated.binding.unbind(function).formerDriver == "virtio-pci")
  }

  @Test func whatIsInUseIsTakenOnlyByForce() throws {
    fabricated.addInterface("eth1", on: Self.text, flags: "0x1003")
    let error = BindingError.inUse(address, [.interfaceUp("eth1")])
    #expect(throws: error) { try fabricated.binding.bind(function) }
    #expect(fabricated.writes.isEmpty && fabricated.machine.text(record) == nil)
    #expect(error.description.contains("eth1 is up") && error.description.contains("--force"))
    #expect(try fabricated.binding.bind(function, force: true).overridden == [.interfaceUp("eth1")])
  }

  @Test func whatCannotBeTakenIsRefusedBeforeAnyWrite() throws {
    fabricated.addFunction("0000:00:05.0", group: nil)
    fabricated.addFunction("0000:00:06.0", classCode: "0x060400", driver: "pcieport")
    let bus = fabricated.bus
    let alone = try bus.function(named: "00:05.0")
    let bridge = try bus.function(named: "00:06.0")
    #expect(throws: BindingError.noIOMMU(alone.address)) {
      try fabricated.binding.bind(alone, force: true)
    }
    #expect(throws: BindingError.isBridge(bridge.address)) {
      try fabricated.binding.bind(bridge, force: true)
    }
    #expect(throws: BindingError.notBound(address, driver: "virtio-pci")) {
      try fabricated.binding.unbind(function)
    }
    #expect(fabricated.writes.isEmpty)
  }

  @Test func withoutTheModuleTheRemedyIsNamed() throws {
    let bare = FabricatedMachine()
    bare.addFunction(Self.text, group: 4)
    let function = try bare.bus.function(named: Self.text)
    #expect(throws: BindingError.noDriver("vfio-pci")) { try bare.binding.bind(function) }
  }

  /// At each step, and with a driver that takes nothing, everything is as it was.
  @Test(arguments: ["driver_override", "virtio-pci/unbind", "drivers_probe", "nothing"])
  func aStepThatFailsIsUndone(step: String) throws {
    if step == "nothing" {
      fabricated.refusing = ["vfio-pci"]
    } else {
      fabricated.failures[step] = EIO
    }
    #expect(throws: BindingError.self) { try fabricated.binding.bind(function) }
    #expect(fabricated.driver(Self.text) == "virtio-pci")
    #expect(override == "(null)")
    #expect(fabricated.machine.text(record) == nil)
  }

  @Test func withoutPermissionTheFileIsNamed() throws {
    fabricated.failures["driver_override"] = EACCES
    let path = "/sys/bus/pci/devices/\(Self.text)/driver_override"
    #expect(throws: BindingError.permission(path: path)) { try fabricated.binding.bind(function) }
  }

  @Test func whatAProcessHoldsIsNotGivenBack() throws {
    try fabricated.binding.bind(function)
    fabricated.file("proc/321/comm", "martlet\n")
    fabricated.makeFolder("proc/321/fd")
    fabricated.link("proc/321/fd/5", to: "/dev/vfio/4")
    #expect(throws: BindingError.inUse(address, [.process(pid: 321, name: "martlet")])) {
      try fabricated.binding.unbind(function)
    }
    #expect(fabricated.driver(Self.text) == "vfio-pci")
  }

  @Test func theGroupIsGivenToAUser() throws {
    let owner = (user: getuid() == 0 ? 1000 : getuid(), group: getgid())
    try fabricated.binding.bind(function, owner: owner)
    var status = stat()
    #expect(stat("\(fabricated.root)/dev/vfio/4", &status) == 0)
    #expect(status.st_uid == owner.user && status.st_gid == owner.group)
  }
}
