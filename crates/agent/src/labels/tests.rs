mod ledger;
mod object;
mod tables;
