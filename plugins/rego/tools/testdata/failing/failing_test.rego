package imgate.services.failing_test

import data.imgate.services.failing

test_one_thing if {
	print("size:", 3)
	plan := failing.plan with input as {"message": {"size": 3}}
	plan.store == "3h"
}

test_another if failing.match.domains == ["failing.example.com"]

todo_test_later if false
