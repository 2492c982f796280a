import CLinux
import Glibc

/// A stack that a program has, by the name that `--stack` gives it.
public struct InstalledStack {
  public let name: String
  @usableFromInline
  let run: (InstanceEnvironment, InstanceArguments) throws(StackError) -> Int32

  /// A stack with its loop, compiled for it.
  @inlinable
  public init<Stack: StackInstance & ~Copyable>(_ name: String, _: Stack.Type) {
    self.name = name
    run = { (environment, arguments) throws(StackError) in
      let channel = InstanceChannel(environment.channel, queues: environment.queues)
      let stack = try Stack(environment, arguments, channel: channel)
      var loop = InstanceLoop(stack: stack, channel: channel, mode: arguments.mode)
      return try loop.run(control: InstanceEnvironment.Inherited.control)
    }
  }

  /// A stack that the program could have and has not.
  /// - Parameter reason: what to do, one line.
  public init(_ name: String, isMissing reason: String) {
    self.name = name
    run = { (_, _) throws(StackError) in throw StackError(reason) }
  }
}

/// A program that is one instance: the whole of its `main.swift`.
///
///     InstanceProgram.main([InstalledStack("mine", MyStack.self)])
///
/// `martlet run --stack ./my-program` then gives it a NIC.
public enum InstanceProgram {
  /// Runs the stack that the command line names, or the only one there is, until its end.
  public static func main(_ stacks: [InstalledStack]) -> Never {
    do throws(StackError) {
      exit(try run(stacks))
    } catch {
      let text = Array("error \(error)".utf8)
      _ = linux_send_descriptors(
        InstanceEnvironment.Inherited.control, text, text.count, nil, 0, 0)
      exit(1)
    }
  }

  private static func run(_ stacks: [InstalledStack]) throws(StackError) -> Int32 {
    let arguments = try InstanceArguments(Array(CommandLine.arguments.dropFirst()))
    let isOnly = stacks.count == 1 && arguments.stack.isEmpty
    guard let stack = isOnly ? stacks[0] : stacks.first(where: { $0.name == arguments.stack })
    else {
      let names = stacks.map(\.name).sorted().joined(separator: ", ")
      throw StackError("there is no stack named \(arguments.stack): there are \(names)")
    }
    return try stack.run(InstanceEnvironment(arguments), arguments)
  }
}
