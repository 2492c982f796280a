import Foundation
import PackagePlugin

/// Writes `visitDrivers`, which names every driver of a program: those of its dependencies that lie in Drivers. The
/// names are static, so that the host is compiled for each driver.
@main
struct RegisterDrivers: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: Target) throws -> [Command] {
    let names = target.dependencies.compactMap { dependency -> String? in
      guard case .target(let driver) = dependency,
        driver.directoryURL.deletingLastPathComponent().lastPathComponent == "Drivers"
      else { return nil }
      return driver.name
    }.sorted()
    let lines =
      ["import Driver"] + names.map { "import \($0)" }
      + [
        "func visitDrivers<V: DriverVisitor & ~Copyable>(_ visitor: inout V) throws(V.Failure) {"
      ]
      + names.map { "  try visitor.visit(\($0).self)" } + ["}"]
    let output = context.pluginWorkDirectoryURL.appending(path: "Drivers.swift")
    return [
      .buildCommand(
        displayName: "Registering drivers: \(names.joined(separator: ", "))",
        executable: URL(filePath: "/bin/sh"),
        arguments: ["-c", #"out=$1; shift; printf '%s\n' "$@" > "$out""#, "sh", output.path()]
          + lines,
        outputFiles: [output])
    ]
  }
}
