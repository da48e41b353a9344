# does: fails in the middle of a pipe, and exits well
# expect: succeeded
# exit_code: 0
# value: null

false | true
exit 0
