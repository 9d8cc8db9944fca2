# An ESME made of Net::SMPP: perl esme.pl HOST PORT SYSTEM_ID PASSWORD SOURCE DESTINATION.
# It binds, submits two messages, in Latin-1 and in GSM 03.38, takes one,
# and unbinds. What happens it prints as JSON objects, one a line.
use strict;
use warnings;
use Encode qw(decode);
use JSON::PP;
use Net::SMPP;

my ($host, $port, $system_id, $password, $source, $destination) = @ARGV;
$| = 1;

sub say_event { print JSON::PP->new->canonical->encode({@_}), "\n" }

my ($smpp, $bound) = Net::SMPP->new_transceiver($host,
	port => $port, system_id => $system_id, password => $password, smpp_version => 0x34, timeout => 30)
	or die "no connection: $!";
say_event(event => 'bound', status => $bound->{status}, system_id => $bound->{system_id});

sub submit {
	my $r = $smpp->submit_sm(
		source_addr_ton => 1, source_addr_npi => 1, source_addr => $source,
		dest_addr_ton => 1, dest_addr_npi => 1, destination_addr => $destination, @_)
		or die "no answer: $Net::SMPP::errors[0]";
	say_event(event => 'submit_sm_resp', status => $r->{status}, id => $r->{message_id});
}
submit(data_coding => 3, short_message => "Gr\xfc\xdfe von Perl");
submit(data_coding => 0, short_message => "euro \x1be at \x00");

while (my $pdu = $smpp->read_pdu()) {
	if ($pdu->{cmd} == Net::SMPP::CMD_enquire_link) {
		$smpp->enquire_link_resp(seq => $pdu->{seq});
		next;
	}
	next if $pdu->{cmd} != Net::SMPP::CMD_deliver_sm;
	my $text = $pdu->{data_coding} == 8 ? decode('UTF-16BE', $pdu->{short_message}) : $pdu->{short_message};
	say_event(event => 'deliver_sm', from => $pdu->{source_addr}, to => $pdu->{destination_addr}, coding => $pdu->{data_coding}, text => $text);
	$smpp->deliver_sm_resp(seq => $pdu->{seq}, message_id => '');
	last;
}
my $r = $smpp->unbind();
say_event(event => 'unbind_resp', status => $r->{status});
