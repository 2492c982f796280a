import FuzzHarness

@testable import Statistics

/// What a client of the metrics' endpoint sends, whole and as it comes in pieces.
let httpRequests = FuzzTarget("http-requests") { input in
  let bytes = input.bytes
  let whole = HTTPRequest.read(bytes)
  var first: HTTPRequest.Reading?
  // Bounded: a head that ends late is looked at in longer pieces.
  for count in stride(from: 0, through: bytes.count, by: bytes.count / 64 + 1) {
    let reading = HTTPRequest.read(Array(bytes[..<count]))
    if reading == .incomplete { continue }
    first = reading
    break
  }
  if let first, first != .refused(431), whole != .refused(431) {
    require(first == whole, "\(first), and then \(whole)")
  }
  switch whole {
  case .incomplete:
    require(bytes.count <= HTTPRequest.maximumBytes, "waits for more than it takes")
  case .refused(let status):
    require((400...505).contains(status), "is refused with \(status)")
    require(!HTTPAnswer.refusal(status).bytes().isEmpty, "\(status) says nothing")
  case .request(let request):
    require(request.path.hasPrefix("/"), "\(request.path) is no path")
    let isPlain = (request.path + request.host).utf8.allSatisfy { $0 == 9 || $0 >= 32 && $0 < 127 }
    require(isPlain, "\(request) has bytes that no head may have")
    _ = ListenAddress.isLoopbackName(request.host)
  }
}
