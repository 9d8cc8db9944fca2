package imgate.services.hello_test

import data.imgate.services.hello

test_keeps_a_day if hello.plan.store == "24h"

test_plain_text_alone if hello.plan.mime.sip == ["text/plain"]
