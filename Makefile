# The two words most people need are `make test` and `make fuzz`; `cargo xtask --help` has the rest.
XTASK = cargo xtask

.PHONY: test check gen fuzz soak dist

# Installs what the tests need and runs every ring that can run here.
test:
	@$(XTASK) test $(TEST_ARGS)

# Format, lints, generated files, dependencies.
check:
	@$(XTASK) check

gen:
	@$(XTASK) gen

# A minute for each parser of outside text.
fuzz:
	@$(XTASK) fuzz

# The long runs: ten minutes of chaos on imaginary nodes and as long on the test bed, then an hour of fuzzing for each
# parser.
soak:
	@$(XTASK) chaos --minutes 10
	@PITCREW_CHAOS_SECONDS=600 $(XTASK) test --ring 4 --program ring4_agent_chaos
	@$(XTASK) fuzz --seconds 3600

# What people run on their hosts, in dist/.
dist:
	@$(XTASK) dist
