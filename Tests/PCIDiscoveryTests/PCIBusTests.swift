import PCI
import Testing

@testable import PCIDiscovery

@Suite struct PCIAddressTests {
  @Test(arguments: [
    ("04:00.1", "0000:04:00.1"), ("0000:04:00.1", "0000:04:00.1"),
    ("10000:e1:1f.7", "10000:e1:1f.7"),
    ("4:0.0", "0000:04:00.0"),
  ])
  func isReadAndWritten(text: String, whole: String) {
    #expect(PCIAddress(text)?.description == whole)
  }

  @Test(arguments: [
    "", "eth0", "04:00", "04:00.8", "04:20.0", "0000:04:00.1 ", "0000:04:00.1/..", "-1:00.0",
    "+1:00.0", "0:04:00.1", "04:00.1.2", "::.", "104:00.0", "04:00.", "0000:04:000.1",
  ])
  func whatIsNoneIsRefused(text: String) {
    #expect(PCIAddress(text) == nil)
  }
}

@Suite struct PCIBusTests {
  let fabricated = FabricatedMachine()

  @Test func functionsAreFoundWithIdsDriverGroupAndInterfaces() throws {
    fabricated.addFunction("0000:00:03.0", driver: "virtio-pci", group: 4)
    fabricated.addInterface("eth1", on: "0000:00:03.0")
    fabricated.addFunction(
      "0000:00:02.0", vendor: "0x8086", device: "0x10d3", driver: nil, group: nil)
    let functions = fabricated.bus.functions()
    #expect(functions.map(\.address.description) == ["0000:00:02.0", "0000:00:03.0"])
    let first = functions[0]
    #expect(first.driver == nil && first.group == nil && first.interfaces.isEmpty)
    let second = functions[1]
    #expect(second.match == PCIMatch(vendor: 0x1af4, device: 0x1041))
    #expect(second.driver == "virtio-pci" && second.group == 4 && second.isNetwork)
    #expect(second.interfaces == ["eth1"])
  }

  @Test func aFunctionIsFoundByAddressOrInterface() throws {
    fabricated.addFunction("0000:00:03.0", driver: "virtio-pci")
    fabricated.addInterface("eth1", on: "0000:00:03.0")
    fabricated.file("sys/devices/virtual/net/lo/flags", "0x9")
    fabricated.link("sys/class/net/lo", to: "\(fabricated.root)/sys/devices/virtual/net/lo")
    let bus = fabricated.bus
    for text in ["00:03.0", "0000:00:03.0", "eth1"] {
      #expect(try bus.function(named: text).address.description == "0000:00:03.0")
    }
    #expect(throws: DiscoveryError.interfaceWithoutFunction("lo")) { try bus.function(named: "lo") }
    for text in ["", "..", "eth1/../eth1", "eth9", "00:03"] {
      #expect(throws: DiscoveryError.malformedAddress(text)) { try bus.function(named: text) }
    }
    let missing = PCIAddress("00:09.0")!
    #expect(throws: DiscoveryError.noSuchFunction(missing)) { try bus.function(named: "00:09.0") }
  }

  @Test func withoutPCIThereIsNothing() {
    #expect(fabricated.bus.functions().isEmpty)
  }
}

@Suite struct FunctionUseTests {
  let fabricated = FabricatedMachine()

  func uses(_ address: String = "0000:00:03.0") throws -> [FunctionUse] {
    let bus = fabricated.bus
    return bus.uses(of: try bus.function(named: address))
  }

  @Test func anInterfaceThatIsDownAndBareIsFree() throws {
    fabricated.addFunction("0000:00:03.0", driver: "virtio-pci")
    fabricated.addInterface("eth1", on: "0000:00:03.0")
    #expect(try uses().isEmpty)
  }

  @Test func everyUseOfAnInterfaceIsNamed() throws {
    fabricated.addFunction("0000:00:03.0", driver: "virtio-pci")
    fabricated.addInterface("eth1", on: "0000:00:03.0", flags: "0x1003")
    fabricated.addresses = [("eth0", "10.0.0.1"), ("eth1", "10.0.0.5")]
    fabricated.file(
      "proc/net/route",
      "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t0\t1\t0\t0\t0\t0\neth1\t0000000A\t0\t1\t0\t0\t0\t00FFFFFF\n"
    )
    fabricated.link("sys/class/net/eth1/master", to: "../br0")
    #expect(
      try uses() == [
        .interfaceUp("eth1"), .interfaceAddress("eth1", address: "10.0.0.5"),
        .interfaceRoute("eth1", destination: "10.0.0.0"),
        .interfaceMaster("eth1", master: "br0"),
      ])
  }

  @Test func linkLocalRoutesOfIPv6DoNotCountAndOthersDo() throws {
    fabricated.addFunction("0000:00:03.0", driver: "virtio-pci")
    fabricated.addInterface("eth1", on: "0000:00:03.0")
    let zero = String(repeating: "0", count: 32)
    func route(_ destination: String) -> String {
      "\(destination) 40 \(zero) 00 \(zero) 00000100 00000001 00000000 00000001     eth1\n"
    }
    let local = "fe80" + String(repeating: "0", count: 28)
    fabricated.file("proc/net/ipv6_route", route(local))
    #expect(try uses().isEmpty)
    fabricated.file("proc/net/ipv6_route", route(local) + route(zero))
    #expect(try uses() == [.interfaceRoute("eth1", destination: "default (IPv6)")])
  }

  @Test func aNetworkDriverWithoutInterfaceHasItElsewhere() throws {
    fabricated.addFunction("0000:00:03.0", driver: "virtio-pci")
    #expect(try uses() == [.interfaceElsewhere(driver: "virtio-pci")])
  }

  @Test func disksThatAreMountedSwappedOnOrCarrySomethingAreUses() throws {
    fabricated.addFunction(
      "0000:00:04.0", device: "0x1042", classCode: "0x010000", driver: "virtio-pci", group: 4)
    fabricated.addDisk("vda", on: "0000:00:04.0", number: "254:0")
    fabricated.addDisk("vda1", on: "0000:00:04.0", number: "254:1")
    fabricated.addDisk("vda2", on: "0000:00:04.0", number: "254:2")
    fabricated.addDisk("vda3", on: "0000:00:04.0", number: "254:3")
    fabricated.addFunction(
      "0000:00:05.0", device: "0x1042", classCode: "0x010000", driver: "virtio-pci", group: 5)
    fabricated.addDisk("vdb", on: "0000:00:05.0", number: "254:16")
    fabricated.file(
      "proc/self/mountinfo",
      "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n23 1 0:30 / /home rw shared:1 - btrfs /dev/vda rw\n")
    fabricated.file(
      "proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/vda2 partition\t1\t0\t-2\n")
    fabricated.makeFolder("sys/class/block/vda3/holders/dm-0")
    #expect(
      try uses("0000:00:04.0") == [
        .diskMounted("vda", at: "/home"), .diskMounted("vda1", at: "/"), .diskSwap("vda2"),
        .diskHeld("vda3", holder: "dm-0"),
      ])
    #expect(try uses("0000:00:05.0").isEmpty)
  }

  @Test func anNVMeControllerThatShowsNoDisksIsNotFree() throws {
    fabricated.addFunction("0000:00:06.0", classCode: "0x010802", driver: "nvme")
    #expect(try uses("0000:00:06.0") == [.disksUnknown(driver: "nvme")])
  }

  @Test func othersOfTheGroupCountUnlessTheyAreBridgesOrVFIOs() throws {
    fabricated.addFunction("0000:00:03.0", group: 7)
    fabricated.addFunction("0000:00:03.1", driver: "e1000e", group: 7)
    fabricated.addFunction("0000:00:03.2", classCode: "0x060400", driver: "pcieport", group: 7)
    fabricated.addFunction("0000:00:03.3", driver: "vfio-pci", group: 7)
    fabricated.addFunction("0000:00:03.4", driver: nil, group: 7)
    fabricated.addFunction("0000:00:08.0", driver: "e1000e", group: 8)
    let member = PCIAddress("00:03.1")!
    #expect(try uses() == [.groupMember(member, driver: "e1000e")])
  }

  @Test func processesWithTheGroupOpenAreNamed() throws {
    fabricated.addFunction("0000:00:03.0", driver: "vfio-pci", group: 7)
    fabricated.file("proc/321/comm", "martlet\n")
    fabricated.makeFolder("proc/321/fd")
    fabricated.link("proc/321/fd/5", to: "/dev/vfio/7")
    fabricated.makeFolder("proc/322/fd")
    fabricated.link("proc/322/fd/5", to: "/dev/vfio/8")
    #expect(try uses() == [.process(pid: 321, name: "martlet")])
  }
}
