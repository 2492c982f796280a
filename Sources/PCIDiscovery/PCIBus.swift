import CPCI
import Glibc
import PCI

/// A PCI function as this machine has it: what it is, and who has it now.
public struct DiscoveredFunction: Sendable, Equatable {
  public var address: PCIAddress
  public var vendor: UInt16
  public var device: UInt16
  /// Base class, subclass and programming interface, 24 bits (PCI Code and ID Assignment).
  public var classCode: UInt32
  /// Names from the database of libpci; nil where it does not know the function.
  public var vendorName: String?
  public var deviceName: String?
  public var className: String?
  public var driver: String?
  /// The IOMMU group; nil without an IOMMU.
  public var group: Int?
  /// The kernel's network interfaces on it, of this network namespace.
  public var interfaces: [String]

  public var match: PCIMatch { PCIMatch(vendor: vendor, device: device) }
  public var isNetwork: Bool { classCode >> 16 == 0x02 }
  public var isBoundToVFIO: Bool { driver.map(Self.isVFIO) ?? false }
  /// A bridge passes on what is behind it: it is never taken, and does not make a group unusable.
  var isBridge: Bool { [0x0604, 0x0607, 0x0609].contains(classCode >> 8) }

  /// vfio-pci and its variants for single devices (mlx5_vfio_pci, …).
  static func isVFIO(_ driver: String) -> Bool {
    driver == "vfio-pci" || driver.hasSuffix("-vfio-pci") || driver.hasSuffix("_vfio_pci")
  }
}

/// The PCI functions of this machine: names by libpci, the rest by sysfs. Only reads.
public struct PCIBus: Sendable {
  let machine: Machine

  public init(machine: Machine = Machine()) { self.machine = machine }

  /// All functions, by address.
  public func functions() -> [DiscoveredFunction] {
    let names = libraryRecords()
    let interfaces = interfacesByAddress()
    return machine.entries("/sys/bus/pci/devices").compactMap { PCIAddress($0) }.sorted().map {
      read($0, names[$0], interfaces[$0] ?? [])
    }
  }

  /// Finds a function by what a user typed.
  /// - Parameter text: "04:00.1", "0000:04:00.1", or the name of a network interface on it.
  public func function(named text: String) throws(DiscoveryError) -> DiscoveredFunction {
    let address: PCIAddress
    if let parsed = PCIAddress(text) {
      address = parsed
    } else {
      // A name with a slash would leave the folder of interfaces.
      guard !text.isEmpty, !text.contains("/"), text != ".", text != "..",
        machine.exists("/sys/class/net/\(text)")
      else {
        throw .malformedAddress(text)
      }
      guard let owner = self.address(ofInterface: text) else {
        throw .interfaceWithoutFunction(text)
      }
      address = owner
    }
    guard let function = functions().first(where: { $0.address == address }) else {
      throw .noSuchFunction(address)
    }
    return function
  }

  /// The functions that share an IOMMU group, and so can only be taken together. Empty without an IOMMU.
  public func members(ofGroup group: Int?) -> [DiscoveredFunction] {
    guard let group else { return [] }
    return functions().filter { $0.group == group }
  }

  private func read(
    _ address: PCIAddress, _ record: LibraryRecord?, _ interfaces: [String]
  ) -> DiscoveredFunction {
    let folder = "/sys/bus/pci/devices/\(address)"
    func number(_ name: String) -> UInt64 { machine.number("\(folder)/\(name)") ?? 0 }
    return DiscoveredFunction(
      address: address,
      vendor: record?.vendor ?? UInt16(truncatingIfNeeded: number("vendor")),
      device: record?.device ?? UInt16(truncatingIfNeeded: number("device")),
      // libpci leaves the programming interface out.
      classCode: UInt32(truncatingIfNeeded: number("class")) & 0xff_ffff,
      vendorName: record?.vendorName, deviceName: record?.deviceName,
      className: record?.className, driver: driver(of: address),
      group: machine.linkName("\(folder)/iommu_group").flatMap { Int($0) },
      interfaces: interfaces)
  }

  func driver(of address: PCIAddress) -> String? {
    machine.linkName("/sys/bus/pci/devices/\(address)/driver")
  }

  // MARK: Network interfaces

  private func interfacesByAddress() -> [PCIAddress: [String]] {
    var result: [PCIAddress: [String]] = [:]
    for name in machine.entries("/sys/class/net") {
      if let address = address(ofInterface: name) { result[address, default: []].append(name) }
    }
    return result
  }

  private func address(ofInterface name: String) -> PCIAddress? {
    machine.realPath("/sys/class/net/\(name)/device").flatMap(Self.lastAddress)
  }

  /// The function that a path of sysfs's tree of devices leads through last.
  static func lastAddress(in path: String) -> PCIAddress? {
    path.split(separator: "/").reversed().lazy.compactMap { PCIAddress(String($0)) }.first
  }

  // MARK: libpci

  private struct LibraryRecord {
    var vendor: UInt16
    var device: UInt16
    var vendorName: String?
    var deviceName: String?
    var className: String?
  }

  /// What libpci finds; nothing where it cannot read the tree.
  private func libraryRecords() -> [PCIAddress: LibraryRecord] {
    let count = machine.entries("/sys/bus/pci/devices").count
    guard count > 0 else { return [:] }
    var functions = [libpci_function](repeating: libpci_function(), count: count)
    let found = libpci_functions(machine.path("/sys/bus/pci"), &functions, Int32(count))
    var result: [PCIAddress: LibraryRecord] = [:]
    for function in functions.prefix(max(0, Int(found))) {
      let address = PCIAddress(
        domain: UInt32(truncatingIfNeeded: function.domain),
        bus: UInt8(truncatingIfNeeded: function.bus),
        device: UInt8(truncatingIfNeeded: function.device),
        function: UInt8(truncatingIfNeeded: function.function))
      result[address] = LibraryRecord(
        vendor: UInt16(truncatingIfNeeded: function.vendor_identifier),
        device: UInt16(truncatingIfNeeded: function.device_identifier),
        vendorName: Self.name(function.vendor_name), deviceName: Self.name(function.device_name),
        className: Self.name(function.class_name))
    }
    return result
  }

  /// The text in a character array of C; nil where there is none.
  private static func name<CharacterArray>(_ array: CharacterArray) -> String? {
    let text = withUnsafeBytes(of: array) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    return text.isEmpty ? nil : text
  }
}

/// A function that cannot be found. One line each.
public enum DiscoveryError: Error, Equatable, Sendable {
  case malformedAddress(String)
  case noSuchFunction(PCIAddress)
  case interfaceWithoutFunction(String)
}

extension DiscoveryError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .malformedAddress(let text):
      "\"\(text)\" is neither a PCI address such as 0000:04:00.1 nor a network interface: `martlet devices` lists both"
    case .noSuchFunction(let address):
      "there is no PCI function \(address): `martlet devices` lists them"
    case .interfaceWithoutFunction(let name):
      "the interface \(name) is on no PCI function"
    }
  }
}
