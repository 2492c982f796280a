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
func part(_ name: String, in root: String = "Sources", _ dependencies: [Target.Dependency] = [])
  -> Target
{
  .target(
    name: name, dependencies: dependencies, path: "\(root)/\(name)", swiftSettings: swift)
}

func program(
  _ name: String, _ dependencies: [Target.Dependency], plugins: [Target.PluginUsage] = []
) -> Target {
  .executableTarget(
    name: name, dependencies: dependencies, path: "Sources/\(name)", swiftSettings: swift,
    plugins: plugins)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, path: "Tests/\(name)", swiftSettings: swift)
}

/// A driver: Drivers/NAME, with its model in Drivers/NAME/Model and its tests in Drivers/NAME/Tests where it has them
/// there.
/// - Parameter definitions: targets with the definitions that driver and model share.
func driver(_ name: String, _ definitions: [Target.Dependency] = []) -> [Target] {
  let folder = "Drivers/\(name)"
  func has(_ part: String) -> Bool {
    FileManager.default.fileExists(atPath: "\(Context.packageDirectory)/\(folder)/\(part)")
  }
  let apart = ["Model", "Tests", "README.md", "\(name).md"].filter(has)
  var targets: [Target] = [
    .target(
      name: name, dependencies: ["Driver", "Rings", "Memory", "PCI"] + definitions, path: folder,
      exclude: apart, swiftSettings: swift)
  ]
  if has("Model") {
    targets.append(
      .target(
        name: "\(name)Model", dependencies: ["EmulatedPCI", "Wire", "PCI"] + definitions,
        path: "\(folder)/Model", swiftSettings: swift))
  }
  if has("Tests") {
    targets.append(
      .testTarget(
        name: "\(name)DriverTests",
        dependencies: [
          .target(name: name), .target(name: "\(name)Model"), "DriverConformance", "EmulatedPCI",
          "Wire", "Driver", "Memory", "PCI",
        ], path: "\(folder)/Tests", swiftSettings: swift))
  }
  return targets
}

/// The stages of Martlet's own program: Stages/NAME.
let stageNames = ["Firewall", "NAT44", "VLANTagger", "Shaper"]

/// The drivers of Martlet's own programs: one line each.
let drivers = [
  driver("E1000e"),
  driver("RadioLink"),
  driver("VirtioNet", ["Virtio", "VirtioTransports"]),
]
let driverNames = drivers.map { Target.Dependency.target(name: $0[0].name) }

let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let arguments: Target.Dependency = .product(
  name: "ArgumentParser", package: "swift-argument-parser")

var targets: [Target] = [
  .target(name: "CLinux", path: "Sources/CLinux"),
  // The channel for programs in C and C++: one header, which depends on nothing here.
  .target(name: "CMartletChannel", path: "Sources/CMartletChannel"),
  .systemLibrary(
    name: "CPCI", path: "Sources/CPCI", pkgConfig: "libpci", providers: [.apt(["libpci-dev"])]),
  .systemLibrary(
    name: "CSeccomp", path: "Sources/CSeccomp", pkgConfig: "libseccomp",
    providers: [.apt(["libseccomp-dev"])]),
  .systemLibrary(
    name: "CPcap", path: "Sources/CPcap", pkgConfig: "libpcap",
    providers: [.apt(["libpcap-dev"])]),

  // From the bottom up: a part imports only parts above it in this list.
  part("Memory", ["CLinux"]),
  part("PCI", ["Memory", "CLinux"]),
  part("Virtio"),
  part("Rings", ["Memory", "Virtio", "CLinux"]),
  part("Driver", ["PCI", "Rings", "Memory", "CLinux"]),
  part("VirtioTransports", ["Virtio", "Driver", "PCI"]),
  part("Capture", ["Memory", "CLinux"]),
  part("CaptureFile", ["Capture"]),
  part("Trace", ["Driver", "PCI", "Memory"]),
  part("Edu", in: "Drivers", ["Driver", "Rings", "Memory", "PCI"]),
  part("Steering", ["CLinux"]),
  part("Channel", ["Steering", "Memory", "CLinux"]),
  part("Handles", ["Channel", "Memory", "CLinux"]),
  part("Commands", ["Channel", "Memory", "CLinux"]),
  part("VFIOUserMessages", ["CLinux"]),
  part("VFIO", ["VFIOUserMessages", "PCI", "Memory", "CLinux"]),
  part("VhostUserMessages", ["VFIOUserMessages", "CLinux"]),
  part(
    "VhostUser",
    [
      "VhostUserMessages", "VFIOUserMessages", "VFIO", "VirtioTransports", "Virtio", "Driver",
      "PCI", "Memory", "CLinux",
    ]),
  part(
    "Statistics",
    [
      "Steering", "Channel", "Memory", "CLinux",
      .product(name: "Histogram", package: "hdrhistogram-swift"),
    ]),
  part("Top", ["Statistics", "CLinux"]),
  // For programs that have a metrics system; nothing of Martlet's own links it.
  part(
    "MartletMetrics",
    ["Statistics", "Channel", .product(name: "CoreMetrics", package: "swift-metrics")]),
  part("PCIDiscovery", ["PCI", "CPCI", "CLinux"]),
  part("Confinement", ["CSeccomp", "CLinux"]),
  part(
    "Host",
    [
      "Trace", "Driver", "Steering", "Channel", "VhostUser", "VFIO", "PCI", "Memory", "Confinement",
      "Capture", "CLinux",
    ]),
  part("Stacks", ["Driver", "Handles", "Channel", "Steering", "Memory", "Virtio", "CLinux"]),
  part("Stage", ["Channel", "Steering", "Memory", "Confinement", "CLinux"]),
  part("StageKinds", ["Stage"] + stageNames.map { .target(name: $0) }),
  // gVisor itself is built by `make gvisor`, and loaded at run time where it is.
  .target(name: "CGVisor", path: "Sources/CGVisor", exclude: ["Go"]),
  part("GVisorStack", ["CGVisor", "Stacks", "Channel", "Steering", "Memory", "CLinux"]),

  part("EmulatedPCI", in: "Hardware", ["PCI", "Memory", "CLinux"]),
  part("Wire", in: "Hardware", ["CLinux"]),
  part("VirtioNetDevice", in: "Hardware", ["EmulatedPCI", "Virtio", "Wire", "PCI", "CLinux"]),
  part("E1000eDevice", in: "Hardware", ["EmulatedPCI", "Wire", "PCI", "CLinux"]),
  part(
    "DriverConformance", in: "Hardware",
    ["Driver", "EmulatedPCI", "PCI", "Memory", "Wire", "CLinux"]),
  part("EduDevice", in: "Hardware", ["EmulatedPCI", "PCI"]),
  part("RadioLinkDevice", in: "Hardware", ["EmulatedPCI", "Wire", "PCI", "CLinux"]),
  part("VFIOUserServer", in: "Hardware", ["EmulatedPCI", "VFIOUserMessages", "PCI", "CLinux"]),
  part(
    "VhostUserServer", in: "Hardware",
    [
      "VhostUserMessages", "VFIOUserMessages", "VFIOUserServer", "VirtioNetDevice", "EmulatedPCI",
      "Virtio", "CLinux",
    ]),

  part(
    "Supervisor",
    [
      "Host", "Confinement", "PCIDiscovery", "VhostUser", "VFIO", "Steering", "Handles", "Commands",
      "Statistics", "Capture", "Channel", "Driver", "Memory", "PCI", "CLinux",
      .product(name: "TOMLKit", package: "TOMLKit"),
    ]),

  .target(
    name: "NewDriver", path: "Sources/NewDriver", resources: [.embedInCode("Template")],
    swiftSettings: swift),
  .plugin(name: "RegisterDrivers", capability: .buildTool()),
  // A transform of packets that leave, with encryption: what the host does without.
  part("PacketSeal", in: "Examples", ["Driver", "Memory", crypto]),
  // The data path by itself, once ours and once in C, and a program that runs one loop of it.
  .target(name: "ControlLoops", path: "Benchmarks/Control"),
  part(
    "Loops", in: "Benchmarks",
    [
      "ControlLoops", "Stacks", "VirtioNet", "Host", "Commands", "Capture", "Channel",
      "VirtioTransports",
      "Virtio", "Driver", "Memory", "PCI", "CLinux",
    ]),
  .executableTarget(
    name: "martlet-loops", dependencies: ["Loops"], path: "Benchmarks/Program",
    swiftSettings: swift),
  part(
    "Benchmarks",
    [
      "Loops", "ControlLoops", "Supervisor", "Handles", "Stacks", "VirtioNet", "RadioLink",
      "RadioLinkDevice",
      "EmulatedPCI", "Wire", "VhostUser", "VFIO", "VirtioTransports", "Virtio", "Commands",
      "Steering", "Channel", "Driver", "Memory", "PCI", "CLinux",
      .product(name: "Histogram", package: "hdrhistogram-swift"),
    ]),
  // Not part of `martlet`: nothing else needs ciphers.
  .executableTarget(
    name: "martlet-seal-loop",
    dependencies: ["Benchmarks", "Loops", "PacketSeal", "Driver", "Memory", crypto],
    path: "Benchmarks/Seal", swiftSettings: swift),
  program(
    "martlet-host", ["Host", "Driver"] + driverNames, plugins: ["RegisterDrivers"]),
  program("martlet-stage", ["Stage", "StageKinds"]),
  program(
    "martlet-stack", ["Stacks", "GVisorStack"] + (hasLwIP ? ["LwIPStack"] : [])),
  program(
    "martlet",
    [
      "Supervisor", "Confinement", "PCIDiscovery", "VFIOUserServer", "VhostUserServer",
      "VirtioNetDevice",
      "E1000eDevice", "Wire",
      "EmulatedPCI", "NewDriver", "Benchmarks", "Handles", "Loops", "Stacks", "Statistics",
      "Steering", "Top", "Trace", "VFIO",
      "Driver",
      "Channel", "Capture", "CaptureFile", "CPcap", "Stage", "StageKinds",
      "Memory", "PCI", "CLinux", arguments, logging,
    ] + driverNames, plugins: ["RegisterDrivers"]),

  // A driver host whose driver is hostile, for Tests/System/escape.sh.
  .target(name: "EscapeAttempts", path: "Tests/Escape/Attempts"),
  .executableTarget(
    name: "martlet-escape", dependencies: ["EscapeAttempts", "Host", "Driver", "Memory", "PCI"],
    path: "Tests/Escape/Host", swiftSettings: swift),
  tests("MemoryTests", ["Memory", "CLinux"]),
  tests("PCITests", ["PCI", "EmulatedPCI"]),
  tests("PCIDiscoveryTests", ["PCIDiscovery"]),
  tests("RingsTests", ["Rings", "Memory", "Virtio", "CLinux"]),
  tests("VirtioNetTests", ["VirtioNet", "VirtioNetDevice", "EmulatedPCI", "DriverConformance"]),
  tests("E1000eTests", ["E1000e", "E1000eDevice", "EmulatedPCI", "DriverConformance"]),
  tests("EduTests", ["Edu", "EduDevice", "EmulatedPCI", "Driver", "Memory", "PCI", "CLinux"]),
  tests(
    "TraceTests",
    [
      "Trace", "Edu", "EduDevice", "VirtioNet", "VirtioNetDevice", "E1000e", "E1000eDevice",
      "DriverConformance", "EmulatedPCI", "Wire", "Driver", "Memory", "PCI", "CLinux",
    ]),
  tests(
    "RadioLinkTests",
    [
      "RadioLink", "RadioLinkDevice", "Benchmarks", "EmulatedPCI", "Wire", "Driver", "Rings",
      "Memory", "PCI", "CLinux",
    ]),
  tests("HandlesTests", ["Handles", "Channel", "Memory", "CLinux"]),
  part("PlayedSupervisor", in: "Tests", ["Channel", "Memory", "CLinux"]),
  tests(
    "ChannelTests",
    ["Channel", "CMartletChannel", "PlayedSupervisor", "Steering", "Memory", "CLinux"]),
  tests("CommandsTests", ["Commands", "Channel", "Memory", "CLinux"]),
  // What rules say of a packet, read the plain way.
  part("PlainClassifier", in: "Tests", ["Steering"]),
  tests("SteeringTests", ["Steering", "PlainClassifier"]),
  // Captures through changing rules, for Tests/System/steering-captures.sh.
  .executableTarget(
    name: "martlet-steering-captures", dependencies: ["Steering", "PlainClassifier", "CPcap"],
    path: "Tests/Captures", swiftSettings: swift),
  tests("CaptureTests", ["Capture", "CaptureFile", "CPcap", "Memory", "CLinux"]),
  tests("VFIOTests", ["VFIO", "VFIOUserMessages", "PCI", "Memory", "CLinux"]),
  tests(
    "VFIOUserServerTests",
    [
      "VFIOUserServer", "VFIOUserMessages", "VFIO", "VirtioNetDevice", "VirtioNet", "Wire",
      "E1000eDevice", "E1000e", "EduDevice", "Edu", "EmulatedPCI", "Driver", "Memory", "PCI",
      "CLinux",
    ]),
  tests(
    "VhostUserTests",
    [
      "VhostUser", "VhostUserMessages", "VhostUserServer", "VFIOUserMessages", "VFIO", "VirtioNet",
      "VirtioNetDevice", "VirtioTransports", "Virtio", "Wire", "EmulatedPCI", "Driver", "Memory",
      "PCI", "CLinux",
    ]),
  tests("E1000eDeviceTests", ["E1000eDevice", "EmulatedPCI", "Wire", "CLinux"]),
  tests("HardwareTests", ["VirtioNetDevice", "EmulatedPCI", "Wire", "CLinux", "PCI", "Virtio"]),
  tests(
    "HostTests",
    [
      "Host", "CLinux", "Channel", "Driver", "Memory", "PCI", "Virtio", "VirtioNet",
      "VirtioNetDevice", "Steering",
      "EmulatedPCI", "Wire",
    ]),
  tests(
    "TransformTests",
    [
      "PacketSeal", crypto, "DriverConformance", "Driver", "VirtioNet", "VirtioNetDevice",
      "Virtio", "EmulatedPCI", "Wire", "Memory", "PCI", "CLinux",
    ]),
  tests(
    "StacksTests",
    ["Stacks", "Channel", "PlayedSupervisor", "Steering", "Memory", "CLinux"]
      + (hasLwIP ? ["LwIPStack"] : [])),
  tests(
    "StageTests",
    ["Stage", "StageKinds", "Channel", "Steering", "Memory", "CLinux"]
      + stageNames.map { .target(name: $0) }),
  tests("CommandTests", ["Supervisor", "Confinement", "CLinux"]),
  tests(
    "SharingTests",
    [
      "Supervisor", "Statistics", "Host", "Handles", "VFIO", "Commands", "Capture", "Steering",
      "Channel", "Driver", "Memory", "PCI", "CLinux",
    ]),
  tests(
    "StatisticsTests",
    [
      "Statistics", "MartletMetrics", "Steering", "Channel", "Memory", "CLinux",
      .product(name: "CoreMetrics", package: "swift-metrics"),
      .product(name: "MetricsTestKit", package: "swift-metrics"),
    ]),
  tests("TopTests", ["Top", "Statistics"]),
  tests("BenchmarksTests", ["Benchmarks"]),
  // These run in the lab's guest only; elsewhere they are skipped.
  tests(
    "LabTests",
    [
      "Supervisor", "VFIO", "VirtioNet", "E1000e", "Edu", "Trace", "DriverConformance",
      "EmulatedPCI", "Driver", "Memory", "PCI", "CLinux",
    ]),
]

targets += drivers.flatMap { $0 }
targets += stageNames.map {
  .target(
    name: $0, dependencies: ["Stage", "Channel", "Steering", "Memory"], path: "Stages/\($0)",
    exclude: ["README.md"], swiftSettings: swift)
}

if hasLwIP {
  targets += [
    .target(
      name: "CLwIP", path: "Sources/CLwIP",
      exclude: ["lwip/COPYING"],
      sources: [
        "port", "lwip/src/core", "lwip/src/netif/ethernet.c",
      ],
      publicHeadersPath: "include"),
    part("LwIPStack", ["CLwIP", "Stacks", "Driver", "Channel", "Steering", "Memory", "CLinux"]),
    tests(
      "LwIPStackTests", ["LwIPStack", "CLwIP", "Stacks", "PlayedSupervisor", "Channel", "Memory"]),
  ]
}

// Fuzzing/run.sh sets this: the programs link only with libFuzzer.
if Context.environment["MARTLET_FUZZING"] != nil {
  func fuzzer(_ name: String, in folder: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
      name: name, dependencies: ["FuzzHarness"] + dependencies, path: "Fuzzing/\(folder)",
      swiftSettings: swift)
  }
  targets += [
    .target(
      name: "FuzzHarness", dependencies: ["CLinux"], path: "Fuzzing/Harness", swiftSettings: swift),
    fuzzer(
      "martlet-fuzz-devices", in: "Devices",
      [
        "VirtioNet", "VirtioNetDevice", "E1000e", "E1000eDevice", "EmulatedPCI", "Wire",
        "VirtioTransports", "Driver", "Rings", "Virtio", "PCI", "Memory", "CLinux",
      ]),
    fuzzer(
      "martlet-fuzz-messages", in: "Messages",
      [
        "VFIOUserMessages", "VhostUserMessages", "Steering", "PlainClassifier", "Channel", "Trace",
        "Confinement", "Capture", "CPcap", "Stage", "StageKinds", "Statistics", "Memory",
      ]),
    fuzzer(
      "martlet-fuzz-system", in: "System",
      [
        "Supervisor", "Commands", "Host", "Steering", "Channel", "VFIO", "VFIOUserMessages",
        "VFIOUserServer", "VhostUser", "VhostUserMessages", "VhostUserServer", "VirtioNetDevice",
        "EmulatedPCI", "Wire", "Driver", "Virtio", "PCI", "Memory", "CLinux",
      ]),
  ]
  // What a device does has no magic numbers that could be learned from comparisons: they are not traced, which is a
  // third of the time. Of drivers each edge counts; of models and of what holds them, each function.
  let driverSide = [
    "VirtioNet", "E1000e", "VirtioTransports", "Driver", "Rings", "Virtio", "PCI", "Memory",
  ]
  let modelSide = [
    "martlet-fuzz-devices", "FuzzHarness", "VirtioNetDevice", "E1000eDevice", "EmulatedPCI", "Wire",
  ]
  for (level, parts) in [("edge", driverSide), ("func", modelSide)] {
    for target in targets where parts.contains(target.name) {
      target.swiftSettings =
        swift + [.unsafeFlags(["-sanitize-coverage=\(level),inline-8bit-counters,pc-table"])]
    }
  }
  // Swift traps by itself where it would overflow; C, inlined into Swift or not, has a sanitizer for that. Packages of
  // others are left out: that of TOML calls a method of nothing, whose result it does not use.
  let undefined = ["-fsanitize=undefined", "-fsanitize-trap=undefined"]
  for target in targets where target.type == .regular || target.type == .executable {
    if target.name == "CLinux" {
      target.cSettings = (target.cSettings ?? []) + [.unsafeFlags(undefined)]
    } else if target.swiftSettings != nil {
      target.swiftSettings! += [.unsafeFlags(undefined.flatMap { ["-Xcc", $0] })]
    }
  }
}

// Tests/Threads/run.sh sets this: with the thread sanitizer only the tests that it runs are built.
if let only = Context.environment["MARTLET_TESTS"]?.split(separator: " ") {
  targets.removeAll { $0.type == .test && !only.contains(Substring($0.name)) }
}

let package = Package(
  name: "martlet",
  products: [
    .library(
      name: "MartletDriver", targets: ["Driver", "VirtioTransports", "Rings", "PCI", "Memory"]),
    .library(
      name: "MartletHardware",
      targets: ["EmulatedPCI", "VFIOUserServer", "VhostUserServer", "Wire"]),
    .library(name: "MartletHost", targets: ["Host"]),
    .library(name: "MartletConformance", targets: ["DriverConformance"]),
    .library(name: "MartletModels", targets: ["Virtio", "VirtioNetDevice", "E1000eDevice"]),
    .library(name: "MartletTrace", targets: ["Trace"]),
    .library(name: "MartletHandles", targets: ["Handles"]),
    .library(name: "MartletMetrics", targets: ["MartletMetrics", "Statistics"]),
    .library(name: "CMartletChannel", targets: ["CMartletChannel"]),
    .library(name: "MartletInstance", targets: ["Stacks", "Channel", "Steering", "Memory"]),
    .library(name: "MartletStage", targets: ["Stage", "Channel", "Steering", "Memory"]),
    .executable(name: "martlet", targets: ["martlet"]),
    .executable(name: "martlet-host", targets: ["martlet-host"]),
    .executable(name: "martlet-stack", targets: ["martlet-stack"]),
    .executable(name: "martlet-stage", targets: ["martlet-stage"]),
    .executable(name: "martlet-loops", targets: ["martlet-loops"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
  ],
  targets: targets,
  swiftLanguageModes: [.v6]
)
