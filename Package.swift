// swift-tools-version: 6.2
import Foundation
import PackageDescription

// lwIP is not copied into this repository: `make setup` fetches the distribution's source package into
// Sources/CLwIP/lwip. Without it the package builds too, and `--stack lwip` says what is missing.
let lwipSources = Context.packageDirectory + "/Sources/CLwIP/lwip/src/core/tcp.c"
let hasLwIP = FileManager.default.fileExists(atPath: lwipSources)

let swift: [SwiftSetting] = [
  .enableExperimentalFeature("Lifetimes"),
  .enableExperimentalFeature("SuppressedAssociatedTypes"),
]

/// A library target whose sources lie under `root/name`.
func part(
  _ name: String, in root: String = "Sources", _ dependencies: [Target.Dependency] = [],
  exclude: [String] = []
) -> Target {
  .target(
    name: name, dependencies: dependencies, path: "\(root)/\(name)", exclude: exclude,
    swiftSettings: swift)
}

func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(
    name: name, dependencies: dependencies, path: "Sources/\(name)", swiftSettings: swift)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, path: "Tests/\(name)", swiftSettings: swift)
}

let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let arguments: Target.Dependency = .product(
  name: "ArgumentParser", package: "swift-argument-parser")

var targets: [Target] = [
  .target(name: "CLinux", path: "Sources/CLinux"),
  .systemLibrary(
    name: "CPCI", path: "Sources/CPCI", pkgConfig: "libpci", providers: [.apt(["libpci-dev"])]),
  .systemLibrary(
    name: "CSeccomp", path: "Sources/CSeccomp", pkgConfig: "libseccomp",
    providers: [.apt(["libseccomp-dev"])]),

  // From the bottom up: a part imports only parts above it in this list.
  part("Memory", ["CLinux"]),
  part("PCI", ["Memory", "CLinux"]),
  part("Virtio"),
  part("Rings", ["Memory", "Virtio", "CLinux"]),
  part("Driver", ["PCI", "Rings", "Memory"]),
  part("VirtioNet", in: "Drivers", ["Driver", "Rings", "Memory", "PCI", "Virtio"]),
  part(
    "RadioLink", in: "Drivers", ["Driver", "Rings", "Memory", "PCI"], exclude: ["RadioLink.md"]),
  part("Channel", ["Memory", "CLinux"]),
  part("VFIOUserMessages", ["CLinux"]),
  part("VFIO", ["VFIOUserMessages", "PCI", "Memory", "CLinux"]),
  part("PCIDiscovery", ["PCI", "CPCI", "CLinux"]),
  part("Confinement", ["CSeccomp", "CLinux"]),
  part("Host", ["Driver", "Channel", "VFIO", "PCI", "Memory", "Confinement", "CLinux"]),
  part("Stacks", ["Driver", "Channel", "Memory", "Virtio", "CLinux"]),

  part("EmulatedPCI", in: "Hardware", ["PCI", "Memory", "CLinux"]),
  part("Wire", in: "Hardware", ["CLinux"]),
  part("VirtioNetDevice", in: "Hardware", ["EmulatedPCI", "Virtio", "Wire", "PCI", "CLinux"]),
  part("RadioLinkDevice", in: "Hardware", ["EmulatedPCI", "Wire", "PCI", "CLinux"]),
  part("VFIOUserServer", in: "Hardware", ["EmulatedPCI", "VFIOUserMessages", "PCI", "CLinux"]),

  part(
    "Supervisor",
    ["Host", "PCIDiscovery", "VFIO", "Channel", "Driver", "Memory", "PCI", "CLinux"]),

  part(
    "Benchmarks",
    ["RadioLink", "RadioLinkDevice", "EmulatedPCI", "Wire", "Driver", "Memory", "PCI"]),

  program("martlet-host", ["Host", "VirtioNet"]),
  program(
    "martlet-stack", ["Stacks"] + (hasLwIP ? ["LwIPStack"] : [])),
  program(
    "martlet",
    [
      "Supervisor", "PCIDiscovery", "VFIOUserServer", "VirtioNetDevice", "Wire", "EmulatedPCI",
      "VirtioNet", "RadioLink", "Benchmarks", "Stacks", "VFIO", "Driver", "Channel", "Memory",
      "PCI", "CLinux", arguments,
      logging,
    ]),

  tests("MemoryTests", ["Memory", "CLinux"]),
  tests("PCITests", ["PCI", "EmulatedPCI"]),
  tests("PCIDiscoveryTests", ["PCIDiscovery"]),
  tests("RingsTests", ["Rings", "Memory", "Virtio", "CLinux"]),
  tests("VirtioNetTests", ["VirtioNet", "VirtioNetDevice", "EmulatedPCI"]),
  tests(
    "RadioLinkTests",
    [
      "RadioLink", "RadioLinkDevice", "Benchmarks", "EmulatedPCI", "Wire", "Driver", "Rings",
      "Memory", "PCI", "CLinux",
    ]),
  tests("ChannelTests", ["Channel", "Memory", "CLinux"]),
  tests("VFIOTests", ["VFIO", "VFIOUserMessages", "PCI", "Memory", "CLinux"]),
  tests(
    "VFIOUserServerTests",
    [
      "VFIOUserServer", "VFIOUserMessages", "VFIO", "VirtioNetDevice", "VirtioNet", "Wire",
      "EmulatedPCI", "Memory", "CLinux",
    ]),
  tests("HardwareTests", ["VirtioNetDevice", "EmulatedPCI", "Wire", "CLinux", "PCI", "Virtio"]),
  tests(
    "HostTests",
    [
      "Host", "CLinux", "Channel", "Driver", "Memory", "PCI", "Virtio", "VirtioNet",
      "VirtioNetDevice",
      "EmulatedPCI", "Wire",
    ]),
  tests("StacksTests", ["Stacks"] + (hasLwIP ? ["LwIPStack"] : [])),
  tests("CommandTests", ["Supervisor"]),
  // These run in the lab's guest only; elsewhere they are skipped.
  tests("LabTests", ["Supervisor", "VFIO", "VirtioNet", "Driver", "Memory", "PCI", "CLinux"]),
]

if hasLwIP {
  targets += [
    .target(
      name: "CLwIP", path: "Sources/CLwIP",
      exclude: ["lwip/COPYING"],
      sources: [
        "port", "lwip/src/core", "lwip/src/netif/ethernet.c",
      ],
      publicHeadersPath: "include"),
    part("LwIPStack", ["CLwIP", "Stacks", "Channel", "Memory", "CLinux"]),
  ]
}

let package = Package(
  name: "martlet",
  products: [
    .library(name: "MartletDriver", targets: ["Driver", "Rings", "PCI", "Memory"]),
    .library(name: "MartletHardware", targets: ["EmulatedPCI", "VFIOUserServer", "Wire"]),
    .library(name: "MartletChannel", targets: ["Channel", "Stacks"]),
    .executable(name: "martlet", targets: ["martlet"]),
    .executable(name: "martlet-host", targets: ["martlet-host"]),
    .executable(name: "martlet-stack", targets: ["martlet-stack"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
  ],
  targets: targets,
  swiftLanguageModes: [.v6]
)
