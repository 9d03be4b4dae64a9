"""The chat page: conversations kept on the server, their replies, and the page that shows them."""
