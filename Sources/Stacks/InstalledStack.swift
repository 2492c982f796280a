import Glibc

/// A stack that a program has, by the name that `--stack` gives it.
public struct InstalledStack {
  /// What `--stack` names.
  public let name: String
  @usableFromInline
  let run: (InstanceEnvironment, InstanceArguments) throws(StackError) -> Int32

  /// A stack with its loop, compiled for it.
  /// - Parameters:
  ///   - name: what `--stack` names.
  ///   - make: the stack, in its environment, with what the user wants of it.
  @inlinable
  public init<Stack: StackInstance & ~Copyable>(
    _ name: String,
    _ make:
      @escaping (InstanceEnvironment, InstanceArguments, InstanceChannel) throws(StackError)
      -> Stack
  ) {
    self.name = name
    run = { (environment, arguments) throws(StackError) in
      let channel = InstanceChannel(environment)
      let stack = try make(environment, arguments, channel)
      var loop = InstanceLoop(stack: stack, channel: channel, mode: arguments.mode)
      return try loop.run()
    }
  }

  /// A stack that the program could have and has not.
  /// - Parameters:
  ///   - name: what `--stack` names.
  ///   - reason: what to do, one line.
  public init(_ name: String, isMissing reason: String) {
    self.name = name
    run = { (_, _) throws(StackError) in throw StackError(reason) }
  }
}

/// A program that is one instance: the whole of its `main.swift`.
///
///     InstanceProgram.main([InstalledStack("mine", MyStack.init)])
///
/// `martlet run --stack ./my-program` then gives it a NIC.
public enum InstanceProgram {
  /// Runs the stack that the command line names, or the only one there is, until its end.
  public static func main(_ stacks: [InstalledStack]) -> Never {
    do throws(StackError) {
      let environment = try InstanceEnvironment.inherited()
      // The supervisor hears of wrong arguments too.
      let code = try environment.run { () throws(StackError) -> Int32 in
        let arguments = try InstanceArguments(Array(CommandLine.arguments.dropFirst()))
        return try choose(from: stacks, arguments.stack).run(environment, arguments)
      }
      exit(code)
    } catch {
      // The supervisor of `martlet run` says it for us.
      if getenv("MARTLET_SOCKET") != nil {
        let line = Array("\(CommandLine.arguments[0]): \(error)\n".utf8)
        _ = write(STDERR_FILENO, line, line.count)
      }
      exit(1)
    }
  }

  static func choose(
    from stacks: [InstalledStack], _ name: String
  ) throws(StackError) -> InstalledStack {
    if stacks.count == 1 && name.isEmpty { return stacks[0] }
    guard let stack = stacks.first(where: { $0.name == name }) else {
      let names = stacks.map(\.name).sorted().joined(separator: ", ")
      throw StackError("there is no stack named \(name): there are \(names)")
    }
    return stack
  }
}
