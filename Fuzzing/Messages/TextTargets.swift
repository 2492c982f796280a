import Channel
import Confinement
import FuzzHarness
import Steering
import Trace

/// A claim, as the text that an instance sends.
let claims = FuzzTarget("claims") { input in
  if let claim = Claim(input.text) {
    require(Claim(claim.description) == claim, "\(claim) is not what it was")
  }
}

/// What a process says that wants to become an instance.
let attachRequests = FuzzTarget("attach-requests") { input in
  let message = ControlMessage(input.text)
  if let request = try? AttachRequest(message) {
    require(
      (try? AttachRequest(ControlMessage(request.text))) == request,
      "\(request.text) is not what it was")
  }
}

/// What a supervisor answers. The first byte: how many descriptors come with it.
let welcomes = FuzzTarget("welcomes") { input in
  var input = input
  let descriptors = Int(input.number(UInt8.self))
  let message = ControlMessage(input.text)
  do throws(AttachError) {
    let welcome = try Welcome(message, descriptorCount: descriptors)
    require(
      (try? Welcome(ControlMessage(welcome.text), descriptorCount: descriptors)) == welcome,
      "\(welcome.text) is not what it was")
    for queue in 0..<welcome.queues {
      let position = welcome.position(of: .hostDoorbell(queue))
      require(position.map { $0 < descriptors } == true, "a descriptor that did not come")
    }
  } catch {
    _ = error.description
  }
}

/// A trace of a run. The first line is always right.
let traces = FuzzTarget("traces") { input in
  do throws(TraceError) {
    let trace = try Trace(text: Trace.header + "\n" + input.text)
    _ = (trace.mappings, trace.labels)
  } catch {
    _ = error.description
  }
}

/// The last word of a driver host that has made a system call that it may not make.
let violations = FuzzTarget("violations") { input in
  if let call = Violation(input.text) {
    require(call.arguments.count == 3 && !"\(call)".isEmpty, "\(call) says nothing")
  }
}
