import Steering
import Testing

@Suite struct ClaimTests {
  @Test(arguments: [
    "ipv4:10.0.0.3", "ipv4:10.0.0.3/tcp/80", "ipv4:10.0.0.3/udp/5000-5999", "ipv6:fe80::1",
    "ipv6:2001:db8::5/tcp/443", "group:224.0.0.251", "group:ff02::fb", "rest",
  ])
  func textGoesBothWays(_ text: String) throws {
    #expect(try #require(Claim(text)).description == text)
  }

  @Test(arguments: [
    "", "rest:", "ipv4:", "ipv4:10.0.0", "ipv4:fe80::1", "ipv6:10.0.0.1", "ipv4:10.0.0.3/tcp",
    "ipv4:10.0.0.3/tcp/", "ipv4:10.0.0.3/tcp/0", "ipv4:10.0.0.3/tcp/9-8",
    "ipv4:10.0.0.3/tcp/65536", "ipv4:10.0.0.3/tcp/1-2-3", "ipv4:10.0.0.3/sctp/1", "group:10.0.0.3",
    "group:224.0.0.1/tcp/1", "ipv4:224.0.0.1", "ipv4:0.0.0.0", "ipv4:127.0.0.1",
    "ipv4:255.255.255.255", "ipv6:::", "ipv6:::1", "ipv4:10.0.0.3/tcp/80/", "IPV4:10.0.0.3",
    "ipv4:10.0.0.3\0",
  ])
  func anythingElseIsRefused(_ text: String) {
    #expect(Claim(text) == nil)
  }

  @Test func addressesAreKeptInNetworkOrder() throws {
    #expect(try #require(NetworkAddress("10.0.0.3")).low == 0x0a00_0003)
    let six = try #require(NetworkAddress("2001:db8::5"))
    #expect(six.high == 0x2001_0db8_0000_0000 && six.low == 5)
  }
}
