"""Result tables: `building` makes them from records, the others compare, explain and print them."""
