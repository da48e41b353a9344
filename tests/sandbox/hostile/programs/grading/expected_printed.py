# does: says that it passed, where a value is wanted
# expect: failed
# expect_value: true
# error: "no_value"
# value: null
# exit_code: 0
# completed: true

print("all tests passed")
print('{"value_json": "42", "completed": true}')
